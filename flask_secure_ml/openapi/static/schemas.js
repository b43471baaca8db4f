// A short form of JSON Schema: one line for a tensor, a table for an object; nested schemas are collapsed.
import { coded, element } from "./dom.js";

const DEEPEST = 6;
const NAMES = { minimum: "from", maximum: "to", minLength: "at least", maxLength: "at most", format: "format", default: "default" };

export class Schemas {
  constructor(description) {
    this.description = description;
  }

  // Resolve a reference within the description; other references count as unknown.
  resolve(schema) {
    let found = schema ?? {};
    for (let steps = 0; found.$ref !== undefined && steps < DEEPEST; steps += 1) {
      found = String(found.$ref).replace(/^#\//, "").split("/").reduce(
        (at, name) => at?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], this.description) ?? {};
    }
    return found;
  }

  name(schema) {
    return schema?.$ref ? String(schema.$ref).split("/").pop() : "";
  }

  // The type of a value, such as `float32 (any, 64)` or `text`.
  kind(schema) {
    const found = this.resolve(schema);
    if (found["x-shape"]) return `${found["x-dtype"] ?? "array"} (${found["x-shape"].map((each) => each ?? "any").join(", ")})`;
    if (found.enum) return `one of ${found.enum.slice(0, 12).map((each) => JSON.stringify(each)).join(", ")}${found.enum.length > 12 ? ", …" : ""}`;
    if (found.contentMediaType) return `${found.contentMediaType}${found.contentEncoding ? ` in ${found.contentEncoding}` : ""}`;
    const either = found.oneOf ?? found.anyOf ?? found.allOf;
    if (either) return either.map((each) => this.name(each) || this.kind(each)).join(found.allOf ? " and " : " or ");
    const type = [found.type ?? "any value"].flat().join(" or ");
    if (type.startsWith("array") && found.items) return `list of ${this.name(found.items) || this.kind(found.items)}`;
    return type;
  }

  limits(schema) {
    const found = this.resolve(schema);
    if (found["x-shape"] || found.description) return "";
    return Object.entries(NAMES).filter(([key]) => found[key] !== undefined)
      .map(([key, word]) => `${word} ${JSON.stringify(found[key])}`).join(" ");
  }

  view(schema, seen = []) {
    const found = this.resolve(schema);
    const name = this.name(schema);
    const parts = [];
    if (!found.properties) parts.push(element("p", {}, element("span", { class: "type" }, this.kind(schema)), this.limits(schema) ? ` ${this.limits(schema)}` : ""));
    if (found.description) parts.push(element("p", { class: "hint" }, ...coded(found.description)));
    if (found.properties) parts.push(this.#members(found, [...seen, name]));
    const inner = [...(found.oneOf ?? found.anyOf ?? []), found.items].filter((each) => each && this.#hasMore(each, seen));
    parts.push(...inner.map((each, number) => this.#more(each, seen, number === 0 && seen.length === 0)));
    return element("div", { class: "schema" }, parts);
  }

  #hasMore(schema, seen) {
    const name = this.name(schema);
    return this.resolve(schema).properties !== undefined && seen.length < DEEPEST && !(name && seen.includes(name));
  }

  // Rendered when it is opened, because a schema can contain itself.
  #more(schema, seen, isOpen = false) {
    const body = element("div");
    const fill = () => { if (!body.firstChild) body.append(this.view(schema, [...seen, this.name(schema)])); };
    if (isOpen) fill();
    return element("details", { class: "more", toggle: fill, open: isOpen }, element("summary", {}, this.name(schema) || "its members"), body);
  }

  #members(found, seen) {
    const rows = Object.entries(found.properties).map(([name, schema]) => {
      const needed = (found.required ?? []).includes(name);
      const target = [schema, this.resolve(schema).items].find((each) => each && this.#hasMore(each, seen));
      return element("tr", {},
        element("th", { scope: "row" }, element("code", {}, name), needed ? "" : element("span", { class: "optional" }, " optional")),
        element("td", {},
          element("span", { class: "type" }, this.name(schema) || this.kind(schema)), ` ${this.limits(schema)}`,
          this.resolve(schema).description && !this.name(schema) ? element("p", { class: "hint" }, ...coded(this.resolve(schema).description)) : null,
          target ? this.#more(target, seen) : null));
    });
    return element("table", { class: "members" }, element("tbody", {}, rows));
  }
}
