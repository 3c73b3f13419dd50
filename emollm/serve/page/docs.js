// The API's description, openapi.json, as a page. FastAPI's own page loads scripts from another site.

import { byId, el } from "./dom.js";

const METHODS = ["get", "post", "put", "delete"];

start();

async function start() {
  try {
    const api = await (await fetch("openapi.json")).json();
    byId("docs").replaceChildren(
      el("p", { class: "hint" }, `${api.info.description} Version ${api.info.version}. If API keys are set, send `,
        el("code", {}, "Authorization: Bearer KEY"), "."),
      ...Object.entries(api.paths).flatMap(([path, operations]) =>
        METHODS.filter((method) => operations[method]).map((method) => operation(api, path, method))),
    );
  } catch (error) {
    byId("docs").replaceChildren(el("p", { role: "alert" }, `openapi.json is not available: ${error.message}`));
  }
}

function operation(api, path, method) {
  const { description, summary, requestBody, responses } = api.paths[path][method];
  const sent = requestBody?.content["application/json"]?.schema;
  const answered = responses["200"]?.content?.["application/json"]?.schema;
  const errors = Object.entries(responses).filter(([status]) => status !== "200");
  return el("section", { class: "operation" },
    el("h2", {}, el("code", {}, `${method.toUpperCase()} ${path}`)),
    el("p", {}, description ?? summary),
    el("pre", { tabindex: 0 }, el("code", {}, curl(api, path, method, sent))),
    sent ? shape(api, "Body", sent) : null,
    answered ? shape(api, "Answer", answered) : null,
    errors.length ? el("details", {}, el("summary", {}, "Errors"),
      el("dl", {}, ...errors.flatMap(([status, { description: what }]) => [el("dt", {}, status), el("dd", {}, what)])))
      : null,
  );
}

function curl(api, path, method, sent) {
  const url = new URL(`.${path}`, location.href).href;
  if (method === "get") return `curl -s ${url}`;
  const example = Object.fromEntries(Object.entries(resolve(api, sent).properties)
    .map(([name, property]) => [name, property.examples?.[0]]).filter(([, value]) => value !== undefined));
  return `curl -s ${url} -H 'content-type: application/json' \\\n    -d '${JSON.stringify(example)}'`;
}

function resolve(api, schema) {
  if (!schema?.$ref) return schema ?? {};
  return api.components.schemas[schema.$ref.split("/").pop()];
}

// The fields of an object, with the fields of nested objects below them.
function shape(api, title, schema, seen = []) {
  const list = schema.type === "array";
  const inner = resolve(api, list ? schema.items : schema);
  const fields = Object.entries(inner.properties ?? {});
  if (!fields.length) return el("p", { class: "hint" }, `${title}: ${typeOf(api, schema)}`);
  const below = fields.map(([, property]) => (property.type === "array" ? property.items : property))
    .filter((one) => one?.$ref && !seen.includes(one.$ref));
  return el("div", {},
    el("h3", {}, list ? `${title}: a list of ${inner.title}` : `${title}: ${inner.title}`),
    el("dl", {}, ...fields.flatMap(([name, property]) => [
      el("dt", {}, el("code", {}, name)),
      el("dd", {}, `${typeOf(api, property)}${inner.required?.includes(name) ? "" : ", optional"}. `,
        property.description ?? ""),
    ])),
    ...below.map((one) => shape(api, resolve(api, one).title, one, [...seen, one.$ref])),
  );
}

function typeOf(api, schema) {
  if (schema.$ref) return resolve(api, schema).title;
  if (schema.anyOf) return [...new Set(schema.anyOf.map((one) => typeOf(api, one)))].join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? typeOf(api, schema.items) : "anything"}`;
  return schema.type ?? "anything";
}
