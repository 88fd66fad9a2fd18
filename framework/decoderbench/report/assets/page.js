"use strict";
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

/* Colors: as the system, light or dark. */
const themes = ["auto", "light", "dark"], words = { auto: "system", light: "light", dark: "dark" };
const root = document.documentElement, themeButton = document.getElementById("theme");
function setTheme(theme) {
  root.dataset.theme = theme;
  themeButton.querySelector("span").textContent = words[theme];
  themeButton.setAttribute("aria-label", `Colors: ${words[theme]}. Press to change.`);
  try { localStorage.setItem("decoderbench-theme", theme); } catch { /* a file may have no storage */ }
}
themeButton.addEventListener("click", () => setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % 3]));
try {
  const kept = localStorage.getItem("decoderbench-theme");
  if (themes.includes(kept)) setTheme(kept);
} catch { /* a file may have no storage */ }

/* Tables: a button in each header sorts, numbers by data-v, texts by themselves; a field filters. */
const natural = new Intl.Collator("en", { numeric: true });
function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => {
    const cell = row.cells[column];
    return { row, number: cell.dataset.v === undefined ? NaN : Number(cell.dataset.v), text: cell.textContent.trim() };
  });
  const numeric = keyed.some((key) => !Number.isNaN(key.number));
  keyed.sort((a, b) => {
    if (!numeric) return direction * natural.compare(a.text, b.text);
    if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
    return direction * (a.number - b.number);
  });
  body.append(...keyed.map((key) => key.row));
}
for (const table of all("table.grid")) {
  all("thead th", table).forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortBy(table, column, ascending ? 1 : -1);
    });
  });
}
for (const field of all("input.filter")) {
  const block = field.closest(".table-block"), rows = all("tbody tr", block);
  const texts = rows.map((row) => row.textContent.toLowerCase());
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      row.hidden = !wanted.every((word) => texts[place].includes(word));
      count += !row.hidden;
    });
    block.querySelector("output").textContent = wanted.length ? `${count} of ${rows.length} rows` : "";
  });
}

/* Plots: a press on a row of the legend hides or shows it, with Shift or a double click it alone stays. */
for (const legend of all(".legend")) {
  const figures = legend.parentElement, keys = all("button.key", legend);
  const show = (key, on) => {
    key.setAttribute("aria-pressed", String(on));
    for (const mark of all(`svg.plot g[data-row="${key.dataset.row}"]`, figures)) mark.classList.toggle("off", !on);
  };
  const alone = (key) => keys.forEach((other) => show(other, other === key));
  for (const key of keys) {
    key.addEventListener("click", (event) => {
      if (event.shiftKey) alone(key); else show(key, key.getAttribute("aria-pressed") !== "true");
    });
    key.addEventListener("dblclick", () => alone(key));
  }
  legend.querySelector("button.all").addEventListener("click", () => {
    const some = keys.some((key) => key.getAttribute("aria-pressed") !== "true");
    keys.forEach((key) => show(key, some));
  });
}

/* Gallery: images by the reason why they are shown, and by the row that misread them. */
const cards = all(".card"), kinds = all("button.kind"), misread = document.querySelector("select.misread");
if (misread) {
  const update = () => {
    const kind = kinds.find((button) => button.getAttribute("aria-pressed") === "true").dataset.kind;
    let count = 0;
    for (const card of cards) {
      const wrong = card.dataset.wrong.split(" ");
      card.hidden = !((kind === "all" || kind === card.dataset.kind) && (!misread.value || wrong.includes(misread.value)));
      count += !card.hidden;
    }
    document.querySelector("#gallery output").textContent = `${count} of ${cards.length} images`;
  };
  for (const button of kinds) {
    button.addEventListener("click", () => {
      kinds.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      update();
    });
  }
  misread.addEventListener("change", update);
}

/* Contents: the section that is read is marked. */
if ("IntersectionObserver" in window) {
  const links = new Map(all("nav.contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
    const first = Array.from(links.keys()).find((id) => seen.has(id));
    links.forEach((link, id) => id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
  }, { rootMargin: "-10% 0px -60% 0px" });
  all("main > section").forEach((section) => observer.observe(section));
}
