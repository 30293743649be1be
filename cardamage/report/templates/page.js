"use strict";
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const valueOf = (row, column) => {
    const text = row.cells[column].dataset.value;
    const number = text === "" ? NaN : Number(text);
    return Number.isNaN(number) && text !== "" ? text : number;
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-column]");
    if (!button) return;
    const heading = button.closest("th");
    const column = Number(button.dataset.column);
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(body.rows);
    rows.sort((left, right) => {
      const a = valueOf(left, column);
      const b = valueOf(right, column);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...rows);
  });
}
for (const block of document.querySelectorAll(".command")) {
  const button = block.querySelector("button");
  const code = block.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
const tellScrolling = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  }
};
addEventListener("resize", tellScrolling);
const tables = new ResizeObserver(tellScrolling); // some are filled later
for (const table of document.querySelectorAll(".scroll > table")) tables.observe(table);
