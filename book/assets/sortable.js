// Tables of class `sortable` get a button in each header: a click sorts by that column, the next
// one the other way round. Numbers are compared as numbers; equal rows keep their order.
addEventListener("DOMContentLoaded", () => {
  const words = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => Number(a) - Number(b) || words.compare(a, b);

  function sort(table, header) {
    const falling = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const text = (row) => row.cells[header.cellIndex].textContent.trim();
    const body = table.tBodies[0];
    const sign = falling ? -1 : 1;
    body.append(...[...body.rows].sort((a, b) => sign * compare(text(a), text(b))));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.querySelectorAll("th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
    }
  }
});
