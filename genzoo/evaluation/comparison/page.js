"use strict";
/* Tables: a click on a header orders the rows by that column, the best first, and the other way round next time.
   Rows are ordered within the groups of the column; a row of its own says where a group begins. */
function value(cell) {
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function separator(table, words) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  const text = document.createElement("span");
  row.className = "group";
  head.colSpan = table.tHead.rows[0].cells.length;
  head.scope = "rowgroup";
  text.textContent = words;
  head.append(text);
  row.append(head);
  return row;
}

function compare(a, b, index, sign, words) {
  const first = a.cells[index], second = b.cells[index];
  if (words) return sign * first.textContent.trim().localeCompare(second.textContent.trim());
  const x = value(first), y = value(second);
  if (x === null || y === null) return (x === null) - (y === null);
  const groups = Number(first.dataset.group) - Number(second.dataset.group);
  return groups || sign * (x - y);
}

function sortBy(table, index, descending) {
  const head = table.tHead.rows[0].cells[index], body = table.tBodies[0];
  const groups = JSON.parse(head.dataset.groups || "[]"), words = head.classList.contains("words");
  const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
  rows.sort((a, b) => compare(a, b, index, descending ? -1 : 1, words));
  const separated = head.dataset.separated === "yes" && !words;
  let last = null;
  const all = rows.flatMap((row) => {
    const cell = row.cells[index];
    const group = value(cell) === null ? "missing" : cell.dataset.group;
    const before = separated && group !== last ? [separator(table, groups[group] || "no figure")] : [];
    last = group;
    return [...before, row];
  });
  body.replaceChildren(...all);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => {
      const sorted = head.getAttribute("aria-sort");
      const first = head.dataset.first === "descending";
      sortBy(table, index, sorted === null ? first : sorted === "ascending");
    });
  });
}

/* Plots: one pair for each figure of sample quality, chosen by name. */
const choice = document.querySelector("#figure");
if (choice) {
  choice.addEventListener("change", () => {
    document.querySelectorAll(".plots").forEach((plots, i) => { plots.hidden = i !== choice.selectedIndex; });
  });
}
