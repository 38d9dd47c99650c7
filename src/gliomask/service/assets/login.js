/** Take the token from the address's fragment, which is never sent, or leave if the browser has its cookie already. */
const form = document.getElementById("login");
const secret = new URLSearchParams(location.hash.slice(1)).get("token");
if (secret) {
  history.replaceState(null, "", location.pathname);
  form.elements.token.value = secret;
  form.submit();
} else {
  const answer = await fetch("/api/about");
  if (answer.ok) location.replace("/");
}
