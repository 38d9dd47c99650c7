/** Show openapi.json as a page: for each route its input, its output, and an example curl command. */

import { make } from "./dom.js";

const GROUPS = { jobs: "Jobs", results: "Results", viewer: "Viewer data", server: "Server" };
const TOKEN = "-H \"Authorization: Bearer $TOKEN\"";

const [schema, about] = await Promise.all(["/api/openapi.json", "/api/about"].map(async (path) => (await fetch(path)).json()));
const operations = Object.entries(schema.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, one]) => ({ path, method, ...one })));
document.getElementById("operations").replaceChildren(
  make("p", {}, withCode(schema.info.description.split("\n\n")[1] ?? "")),
  ...Object.entries(GROUPS).map(([tag, title]) => make("section", {}, make("h2", {}, title),
    operations.filter((one) => one.tags?.includes(tag)).map(card))),
);

function card(one) {
  const [first, ...rest] = (one.description ?? one.summary ?? "").split("\n\n");
  return make("details", { class: "card operation" },
    make("summary", {}, make("code", { class: "method" }, one.method.toUpperCase()), " ", make("code", {}, one.path), make("span", { class: "faint" }, " ", withCode(first))),
    rest.map((text) => make("p", {}, text)),
    one.parameters?.length > 0 && make("p", {}, "Parameters in the path: ", one.parameters.map((p) => make("span", {}, make("code", {}, p.name), ` ${p.schema?.pattern ?? ""} `))),
    fields(one),
    make("table", {}, make("tbody", {}, Object.entries(one.responses).map(([code, answer]) => make("tr", {},
      make("th", { scope: "row" }, code), make("td", {}, answer.description, " ", kind(answer)))))),
    make("pre", {}, make("code", {}, command(one))));
}

function fields(one) {
  const content = Object.entries(one.requestBody?.content ?? {})[0];
  if (!content) return null;
  const found = resolve(content[1].schema);
  return make("div", {}, make("p", {}, "Request body, as ", make("code", {}, content[0]), ":"),
    make("dl", {}, Object.entries(found.properties ?? {}).flatMap(([name, part]) => [make("dt", {}, make("code", {}, name)), make("dd", {}, part.description ?? part.type ?? "", part.pattern ? ` ${part.pattern}` : "")])));
}

function kind(answer) {
  const [[type, content] = []] = Object.entries(answer.content ?? {});
  if (!type) return "";
  const name = content.schema?.$ref?.split("/").pop();
  return make("details", { class: "inline" }, make("summary", {}, name ?? type), make("pre", {}, make("code", {}, name ? example(resolve(content.schema)) : type)));
}

function resolve(part) {
  return part?.$ref ? part.$ref.split("/").slice(1).reduce((at, name) => at[name], schema) : (part ?? {});
}

/** List the fields of a schema with their types and descriptions. */
function example(part) {
  return Object.entries(part.properties ?? {}).map(([name, value]) => `${name}: ${type(value)}${value.description ? `  (${value.description})` : ""}`).join("\n");
}

function type(value) {
  if (value.anyOf) return value.anyOf.map(type).join(" or ");
  if (value.$ref) return value.$ref.split("/").pop();
  if (value.enum) return value.enum.join(", ");
  return value.type ?? "any";
}

function command(one) {
  const token = about.needs_token ? ` ${TOKEN}` : "";
  const method = { get: "", post: one.requestBody ? "" : " -X POST", patch: " -X PATCH", delete: " -X DELETE" }[one.method] ?? "";
  let body = "";
  if (one.requestBody?.content["multipart/form-data"]) body = " -F files=@t1ce.nii.gz -F files=@flair.nii.gz -F start=true";
  else if (one.requestBody) body = " -H 'content-type: application/json' -d '{\"sequences\": {\"image-1\": \"t1c\"}}'";
  const file = Object.keys(one.responses["200"]?.content ?? {})[0];
  const save = file && file !== "application/json" ? " -o FILE" : "";
  return `curl${token}${method}${body}${save} ${location.origin}${one.path.replace("{job_id}", "$JOB").replace("{image}", "image-1").replace("{name}", "t2f.nii.gz")}`;
}

/** Turn text between backticks into code elements. */
function withCode(text) {
  return text.split("`").map((part, n) => (n % 2 ? make("code", {}, part) : part));
}
