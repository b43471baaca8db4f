// The page: fetches the description, lists its operations, and keeps one credential for all of them.
import { Credential } from "./credentials.js";
import { element } from "./dom.js";
import { Card, operationsOf } from "./operations.js";
import { Schemas } from "./schemas.js";
import { ROOT } from "./try.js";

const wide = matchMedia("(min-width: 1000px)");
const at = (id) => document.getElementById(id);
const credential = new Credential();
let cards = [];

function showMessage(text, isBad = false) {
  at("message").textContent = text;
  at("message").hidden = text === "";
  at("message").classList.toggle("bad", isBad);
}

async function load() {
  const header = credential.header();
  showMessage("Loading …");
  let description;
  try {
    const response = await fetch(`${ROOT}/openapi.json`, { headers: header ? [header] : [], credentials: "omit" });
    if (!response.ok) return reject(response.status);
    description = await response.json();
  } catch (error) {
    return showMessage(`The description is not available: ${error.message}. Reload the page when the server is running.`, true);
  }
  show(description);
}

function reject(status) {
  const reasons = {
    401: "The server rejected this credential. Enter another one.",
    403: "This credential does not permit reading the description. Enter another one.",
    429: "Too many requests. Wait a minute, then try again.",
  };
  showMessage(reasons[status] ?? `The description is not available: the server responded with ${status}.`, true);
}

function show(description) {
  const schemas = new Schemas(description);
  const { title = "API", version = "" } = description.info ?? {};
  document.title = `${title} API`;
  at("title").textContent = title;
  at("version").textContent = version;
  at("version").hidden = version === "" || version === "0";
  at("source").hidden = document.documentElement.dataset.access === "protected";
  if (!credential.present) offer(description.components?.securitySchemes ?? {});
  cards = operationsOf(description).map((each) => new Card(each, schemas, credential));
  list();
  showMessage(cards.length ? "" : "This app has no routes yet.");
  open();
}

function list() {
  const groups = Map.groupBy ? Map.groupBy(cards, groupOf) : grouped(cards);
  at("operations").replaceChildren(...[...groups].map(([name, members]) => element("section", { class: "group" },
    element("h2", {}, name), ...members.map((card) => card.view))));
  at("index").replaceChildren(...[...groups].map(([name, members]) => element("section", {},
    element("h2", { class: "label" }, name),
    element("ul", { class: "flat" }, members.map((card) => element("li", {}, card.link))))));
  at("side").hidden = cards.length === 0;
  filter();
}

function groupOf(card) {
  return card.operation.tags?.[0] ?? "Operations";
}

function grouped(found) {
  const groups = new Map();
  for (const card of found) groups.set(groupOf(card), [...(groups.get(groupOf(card)) ?? []), card]);
  return groups;
}

function filter() {
  const word = at("filter").value.trim().toLowerCase();
  const found = cards.filter((card) => card.show(word)).length;
  at("nothing").hidden = found > 0;
  for (const group of document.querySelectorAll(".group, #index > section")) {
    group.hidden = !group.querySelector("article:not([hidden]), li:not([hidden])");
  }
}

// The cards did not exist when the browser handled the URL fragment.
function open() {
  if (!location.hash) return;
  cards.find((card) => new URL(card.link.href).hash === location.hash)?.view.scrollIntoView();
}

// Next to the cards, the index is always open; above them, on a narrow screen, it is collapsed.
function fold() {
  at("fold").open = wide.matches;
}

function offer(schemes) {
  credential.offer(schemes);
  if (credential.possible) credential.form(at("credential"), used);
}

function used() {
  if (cards.length) for (const card of cards) card.trial.refresh();
  else if (credential.present) load();
}

at("filter").addEventListener("input", filter);
wide.addEventListener("change", fold);
fold();
if (document.documentElement.dataset.access === "protected") {
  offer();
  showMessage("The description of this API is for callers with a credential. Enter one to read it.");
} else {
  load();
}
