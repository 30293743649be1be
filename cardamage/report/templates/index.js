for (const section of document.querySelectorAll("[data-difference]")) {
  const configs = JSON.parse(section.querySelector("[data-configs]").textContent);
  const names = Object.keys(configs);
  if (names.length < 2) continue;
  section.hidden = false;
  const form = section.querySelector("form");
  const { one, other } = form.elements;
  for (const name of names) for (const select of [one, other]) select.append(new Option(name, name));
  other.value = names[1];
  const cell = (row, tag, text) => {
    const made = document.createElement(tag);
    made.className = "text";
    made.textContent = text;
    if (tag === "th") made.scope = row.parentNode?.tagName === "THEAD" ? "col" : "row";
    row.append(made);
  };
  const refresh = () => {
    const left = configs[one.value], right = configs[other.value];
    const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].filter((key) => left[key] !== right[key]);
    const heading = section.querySelector("thead tr");
    heading.replaceChildren();
    for (const text of ["key", one.value, other.value]) cell(heading, "th", text);
    section.querySelector("tbody").replaceChildren(...keys.map((key) => {
      const row = document.createElement("tr");
      cell(row, "th", key);
      cell(row, "td", left[key] ?? "\u2013");
      cell(row, "td", right[key] ?? "\u2013");
      return row;
    }));
    section.querySelector("[role=status]").textContent = keys.length
      ? `${keys.length} ${keys.length === 1 ? "setting differs" : "settings differ"}.` : "Nothing differs but the name.";
    section.querySelector("table").hidden = !keys.length;
    const quoted = [one.value, other.value].map((name) => (/^[\w@%+=:,./-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\"'\"'")}'`));
    section.querySelector("code").textContent = `cardamage report ${quoted.join(" ")} --out DIR`;
  };
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  refresh();
}
