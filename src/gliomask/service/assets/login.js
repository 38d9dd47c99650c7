/** Submit the token from the fragment of the address (browsers never send fragments), or go on if the browser has the cookie. */
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
