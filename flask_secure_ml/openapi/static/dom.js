// Elements are created one by one and strings are inserted as text, so the description cannot inject markup.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// Paragraphs, with code between single or double backquotes.
export function prose(text) {
  return String(text ?? "").split(/\n\s*\n/).filter((part) => part.trim()).map((part) => element("p", {}, ...coded(part)));
}

export function coded(text) {
  return String(text).split(/(`+[^`]+`+)/).map((part) =>
    /^`+[^`]+`+$/.test(part) ? element("code", {}, part.replaceAll("`", "")) : part);
}

let numbers = 0;
export function fresh(name) {
  numbers += 1;
  return `${name}-${numbers}`;
}

export function field(label, input, hint) {
  const id = fresh("field");
  input.id = id;
  const about = hint ? element("p", { class: "hint", id: `${id}-hint` }, hint) : null;
  if (about) input.setAttribute("aria-describedby", about.id);
  return element("div", { class: "field" }, element("label", { class: "label", for: id }, label), input, about);
}

export function choice(options) {
  return element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
}
