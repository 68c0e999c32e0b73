"use strict";
/* Text goes into the page as text only: elements are made here, never parsed from strings. */
const el = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") made.className = value;
    else if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
};

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
const gigabytes = (gb) => (gb >= 4096 ? `${(gb / 1024).toFixed(1)} TB` : `${Math.round(gb)} GB`);

/* A tree of which only the rows in sight are elements. Nodes are {key, children(), label, draw(row)}. */
class Tree {
  constructor(element) {
    this.element = element;
    this.roots = () => [];
    this.open = new Set();
    this.rows = [];
    this.live = new Map();
    this.active = 0;
    const later = () => {
      if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
    };
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", () => { this.measure(); this.repaint(); });
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("click", (event) => this.click(event));
    this.measure();
  }

  measure() {
    this.height = parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 26;
  }

  /* Lists the open part of the tree anew; the active row stays the same node where it is still there. */
  refresh() {
    const before = this.rows[this.active]?.node.key;
    const rows = [];
    const list = (nodes, level, parent) => nodes.forEach((node, at) => {
      const index = rows.length;
      rows.push({ node, level, parent, at: at + 1, of: nodes.length });
      if (node.children && this.open.has(node.key)) list(node.children(), level + 1, index);
    });
    list(this.roots(), 1, -1);
    this.rows = rows;
    const found = before === undefined ? 0 : rows.findIndex((row) => row.node.key === before);
    this.active = Math.max(0, found);
    this.repaint();
  }

  repaint() {
    for (const element of this.live.values()) element.remove();
    this.live.clear();
    this.element.style.height = `${Math.max(this.rows.length, 1) * this.height}px`;
    this.paint();
  }

  paint() {
    const top = this.element.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this.height) - 8);
    const last = Math.min(this.rows.length, Math.ceil((innerHeight - top) / this.height) + 8);
    for (const [index, element] of this.live) {
      if ((index < first || index >= last) && index !== this.active) {
        element.remove();
        this.live.delete(index);
      }
    }
    const order = [];
    for (let index = first; index < last; index += 1) order.push(index);
    if (this.rows.length && !order.includes(this.active)) order.push(this.active);
    const fresh = document.createDocumentFragment();
    for (const index of order) {
      if (this.live.has(index)) continue;
      const element = this.draw(index);
      this.live.set(index, element);
      fresh.append(element);
    }
    this.element.append(fresh);
    if (this.rows.length) this.element.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  draw(index) {
    const { node, level, at, of } = this.rows[index];
    const branch = Boolean(node.children);
    const row = el("div", {
      "id": `row-${index}`, "role": "treeitem", "class": `row ${node.kind}`, "aria-level": level,
      "aria-posinset": at, "aria-setsize": of, "aria-label": node.label(),
      "aria-expanded": branch ? String(this.open.has(node.key)) : null,
      "aria-selected": String(index === this.active), "data-index": index,
    });
    row.style.top = `${index * this.height}px`;
    row.style.setProperty("--level", level - 1);
    row.append(el("span", { "class": "twist", "aria-hidden": "true", "text": branch ? (this.open.has(node.key) ? "▾" : "▸") : "" }));
    node.draw(row);
    return row;
  }

  activate(index, { scroll = true } = {}) {
    if (!this.rows.length) return;
    const next = Math.min(Math.max(index, 0), this.rows.length - 1);
    const before = this.active;
    this.active = next;
    if (scroll) {
      const top = this.element.getBoundingClientRect().top + next * this.height;
      const cover = document.getElementById("controls").getBoundingClientRect();
      const ceiling = getComputedStyle(document.getElementById("controls")).position === "sticky" ? cover.height : 0;
      if (top < ceiling) scrollBy(0, top - ceiling - this.height);
      else if (top + this.height > innerHeight) scrollBy(0, top + 2 * this.height - innerHeight);
    }
    this.live.get(before)?.setAttribute("aria-selected", "false");
    this.paint();
    this.live.get(next)?.setAttribute("aria-selected", "true");
  }

  toggle(index, wanted) {
    const { node } = this.rows[index];
    if (!node.children) return;
    const opened = wanted ?? !this.open.has(node.key);
    if (opened) this.open.add(node.key);
    else this.open.delete(node.key);
    this.active = index;
    this.refresh();
  }

  /* Opens what is above a node, and makes it the active row. */
  reveal(keys) {
    keys.slice(0, -1).forEach((key) => this.open.add(key));
    this.refresh();
    const index = this.rows.findIndex((row) => row.node.key === keys[keys.length - 1]);
    if (index < 0) return false;
    this.element.focus({ preventScroll: true });
    this.activate(index);
    return true;
  }

  click(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    const index = Number(row.dataset.index);
    this.activate(index, { scroll: false });
    this.toggle(index);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.rows.length) return;
    const { node, parent, level } = this.rows[this.active];
    const opened = node.children && this.open.has(node.key);
    const page = Math.max(1, Math.floor(innerHeight / this.height) - 6);
    const moves = {
      ArrowDown: () => this.activate(this.active + 1),
      ArrowUp: () => this.activate(this.active - 1),
      PageDown: () => this.activate(this.active + page),
      PageUp: () => this.activate(this.active - page),
      Home: () => this.activate(0),
      End: () => this.activate(this.rows.length - 1),
      ArrowRight: () => (node.children && !opened ? this.toggle(this.active, true) : opened && this.activate(this.active + 1)),
      ArrowLeft: () => (opened ? this.toggle(this.active, false) : parent >= 0 && this.activate(parent)),
      Enter: () => this.toggle(this.active),
      " ": () => this.toggle(this.active),
      "*": () => {
        this.rows.filter((row) => row.level === level && row.parent === parent).forEach((row) => this.open.add(row.node.key));
        this.refresh();
      },
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  }
}
