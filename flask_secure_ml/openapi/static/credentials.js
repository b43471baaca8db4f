// One credential, kept in memory only: it is lost when the page is closed or reloaded.
import { choice, element, field } from "./dom.js";

const UNKNOWN = {
  ApiKeyHeader: { type: "apiKey", in: "header", name: "X-API-Key" },
  Bearer: { type: "http", scheme: "bearer" },
};

// The schemes that a page can send: a key in a header, or Authorization, but not a proof or a client certificate.
function sendable(schemes) {
  return Object.entries(schemes ?? UNKNOWN).filter(([, scheme]) =>
    (scheme.type === "apiKey" && scheme.in === "header" && scheme.name !== "DPoP") ||
    (scheme.type === "http" && scheme.scheme.toLowerCase() !== "dpop"));
}

// The label of a scheme; the name of an unknown scheme.
export function label(scheme, name) {
  if (name === "ApiKeyBearer" || name === "ApiKeyBasic") return `API key (Authorization: ${scheme.scheme})`;
  if (scheme?.type === "apiKey") return scheme.name === "DPoP" ? "proof in DPoP" : `API key in ${scheme.name}`;
  if (scheme?.type === "mutualTLS") return "client certificate";
  if (scheme?.type !== "http") return name;
  return scheme.scheme.toLowerCase() === "bearer" ? "Access token (Bearer)" : `Authorization: ${scheme.scheme}`;
}

function carried(scheme, value) {
  if (scheme.type === "apiKey") return [scheme.name, value];
  if (scheme.scheme.toLowerCase() === "basic" && value.startsWith("sml_")) return ["Authorization", `Basic ${btoa(`key:${value}`)}`];
  return ["Authorization", `${scheme.scheme.toLowerCase() === "bearer" ? "Bearer" : scheme.scheme} ${value}`];
}

export class Credential {
  #scheme = null;
  #value = "";
  #schemes = [];

  offer(schemes) {
    this.#schemes = sendable(schemes);
  }

  get possible() {
    return this.#schemes.length > 0;
  }

  get present() {
    return this.#value !== "";
  }

  // The name and value of the header, or null.
  header() {
    return this.present ? carried(this.#scheme, this.#value) : null;
  }

  // The same with a shell variable instead of the secret, even if no credential is set.
  standIn() {
    const scheme = this.#scheme ?? this.#schemes[0]?.[1];
    if (!scheme) return null;
    const isKey = scheme.type === "apiKey" || scheme.scheme.toLowerCase() === "apikey";
    return carried(scheme, isKey ? "$API_KEY" : "$TOKEN");
  }

  // Render the form into a section. `used` is called when the credential changes.
  form(section, used) {
    const kind = choice(this.#schemes.map(([name, scheme]) => [name, label(scheme, name)]));
    const value = element("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true });
    const state = element("p", { class: "hint", role: "status" }, "It is kept in the memory of this page only, and is sent to this server only.");
    const forget = element("button", { type: "button", class: "plain", hidden: true, click: () => this.#forget(value, state, forget, used) }, "Forget");
    const submit = (event) => {
      event.preventDefault();
      this.#scheme = Object.fromEntries(this.#schemes)[kind.value];
      this.#value = value.value.trim();
      value.value = "";
      forget.hidden = !this.present;
      state.textContent = this.present ? `In use: ${label(this.#scheme)}.` : "Enter a credential.";
      used();
    };
    section.replaceChildren(
      element("h2", { id: "credential-title" }, "Credential"),
      element("form", { class: "row", submit, autocomplete: "off" },
        field("Kind", kind), field("Secret", value),
        element("div", { class: "buttons" }, element("button", { type: "submit", class: "primary" }, "Use"), forget)),
      state);
    section.hidden = false;
  }

  #forget(input, state, button, used) {
    this.#value = "";
    this.#scheme = null;
    button.hidden = true;
    state.textContent = "Forgotten.";
    input.focus();
    used();
  }
}
