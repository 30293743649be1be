for (const section of document.querySelectorAll("[data-gallery]")) {
  const data = JSON.parse(section.querySelector("[data-images]").textContent);
  const { sides, classes, images } = data;
  const form = section.querySelector(".controls");
  const list = section.querySelector(".shots");
  const more = section.querySelector(".more");
  const dialog = section.querySelector("dialog");
  const PAGE = innerWidth > 640 ? 24 : 8;
  const NOTICED = 0.1; // a change of Dice that counts
  const RIGHT = [86, 180, 233], MISSED = [240, 228, 66];
  const STRIPES = { false: [[120, 20, 200], [255, 255, 255]], other: [[230, 120, 0], [20, 20, 20]] };

  const option = (select, value, label) => select.append(new Option(label, value));
  for (const { id, name } of classes) option(form.elements.class, id, name);
  for (const name of ["a", "b"]) {
    const field = form.elements[name];
    if (field.tagName === "SELECT") sides.forEach((label, number) => option(field, number, label));
  }
  if (data.isOverEpochs || sides.length === 1) {
    form.elements.a.value = data.chosen;
  } else { // what the leader does better than the next
    form.elements.a.value = data.chosen === 0 ? 1 : 0;
    form.elements.b.value = data.chosen;
  }
  document.documentElement.classList.add("has-gallery");
  document.querySelector('.contents a[href="#pictures"]')?.closest("li").classList.add("still");
  section.hidden = false;

  const numberOf = (field) => (field.value === "" ? null : Number(field.value));
  const state = () => ({ a: numberOf(form.elements.a), b: numberOf(form.elements.b) });
  const uri = (kind, text) => `data:image/${kind};base64,${text}`;

  const decoded = new Map(); // class colours by PNG, a few hundred at most
  const pixels = async (png) => {
    if (!decoded.has(png)) {
      if (decoded.size > 400) decoded.clear();
      const image = new Image();
      image.src = uri("png", png);
      decoded.set(png, image.decode().then(() => {
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      }));
    }
    return decoded.get(png);
  };

  // What is painted, pixel by pixel; the border of a region is opaque, its inside half so.
  const paint = (canvas, size, kindAt, colourOf) => {
    canvas.width = size.width;
    canvas.height = size.height;
    const painted = new ImageData(size.width, size.height);
    const { width, height } = size;
    for (let y = 0, at = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, at += 1) {
        const kind = kindAt(at);
        if (!kind) continue;
        const isBorder = x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
          kindAt(at - 1) !== kind || kindAt(at + 1) !== kind ||
          kindAt(at - width) !== kind || kindAt(at + width) !== kind;
        const [red, green, blue] = colourOf(kind, x, y, isBorder);
        painted.data.set([red, green, blue, isBorder ? 255 : 160], 4 * at);
      }
    }
    canvas.getContext("2d").putImageData(painted, 0, 0);
  };
  const idsOf = (image) => new Uint32Array(image.data.buffer);
  const drawLayer = async (canvas, image, view, side) => {
    canvas.hidden = view === "photo";
    if (view === "photo") return;
    const map = view === "truth" ? image.truth : image.maps[side];
    canvas.closest(".stack").classList.toggle("lacking", !map);
    if (!map) { canvas.hidden = true; return; }
    const found = await pixels(map);
    const ids = idsOf(found);
    if (view !== "errors") {
      paint(canvas, found, (at) => ids[at], (id) => [id & 255, (id >> 8) & 255, (id >> 16) & 255]);
      return;
    }
    const truth = idsOf(await pixels(image.truth));
    const kindAt = (at) => {
      if (truth[at] === ids[at]) return truth[at] ? "right" : "";
      return !ids[at] ? "missed" : truth[at] ? "other" : "false";
    };
    paint(canvas, found, kindAt, (kind, x, y, isBorder) => {
      if (kind === "right") return RIGHT;
      if (kind === "missed") return MISSED;
      return STRIPES[kind][!isBorder && (x + y) % 8 < 3 ? 1 : 0];
    });
  };

  const score = (value) => value.toFixed(3);
  const change = (image, { a, b }) => image.dice[b] - image.dice[a];
  const outcome = (image, at) => {
    const by = change(image, at);
    return by >= NOTICED ? "mended" : by <= -NOTICED ? "broken" : "unchanged";
  };
  const range = (image) => Math.max(...image.dice) - Math.min(...image.dice);
  const orders = {
    worst: (at) => (l, r) => l.dice[at.a] - r.dice[at.a],
    best: (at) => (l, r) => r.dice[at.a] - l.dice[at.a],
    changing: () => (l, r) => range(r) - range(l),
    fallen: (at) => (l, r) => change(l, at) - change(r, at),
    risen: (at) => (l, r) => change(r, at) - change(l, at),
    name: () => (l, r) => l.name.localeCompare(r.name),
  };

  let listed = [], opened = -1, shownA = "";
  const painter = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      painter.unobserve(target);
      const image = images[Number(target.dataset.number)];
      target.querySelector("img").src = uri("jpeg", image.photo);
      drawLayer(target.querySelector("canvas"), image, form.elements.view.value, state().a);
    }
  }, { rootMargin: "300px" });

  const scoresOf = (image, { a, b }) =>
    b === null ? `Dice ${score(image.dice[a])}` : `Dice ${score(image.dice[a])} \u2192 ${score(image.dice[b])}`;
  const shortName = ({ name }) => name.split(".rf.")[0]; // without the hash that Roboflow appends
  const card = (image) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.number = images.indexOf(image);
    const stack = document.createElement("span");
    stack.className = "stack";
    const photo = document.createElement("img");
    photo.alt = "";
    stack.append(photo, document.createElement("canvas"));
    const name = document.createElement("b");
    name.textContent = shortName(image);
    const words = document.createElement("span");
    words.textContent = scoresOf(image, state());
    button.append(stack, name, words);
    item.append(button);
    painter.observe(button);
    return item;
  };
  const extend = () => {
    const from = list.children.length;
    list.append(...listed.slice(from, from + PAGE).map(card));
    more.hidden = list.children.length >= listed.length;
  };

  const refresh = () => {
    const at = state();
    const { elements } = form;
    const hasB = at.b !== null && at.b !== at.a;
    elements.change.disabled = !hasB;
    if (!hasB) elements.change.value = "";
    for (const name of ["fallen", "risen"]) elements.sort.querySelector(`[value=${name}]`).disabled = !hasB;
    if (!hasB && ["fallen", "risen"].includes(elements.sort.value)) elements.sort.value = "worst";
    const output = form.querySelector("output");
    if (output) output.textContent = sides[at.a];
    const wanted = elements.class.value, size = elements.size.value;
    const low = Number(elements.low.value), high = Number(elements.high.value || 1);
    const fitting = images.filter((image) =>
      (wanted === "" || image.classes.includes(Number(wanted))) &&
      (size === "" || (size === "none" ? !image.sizes.length : image.sizes.includes(Number(size)))) &&
      image.dice[at.a] >= low && image.dice[at.a] <= high);
    listed = fitting.filter((image) => !elements.change.value || outcome(image, at) === elements.change.value);
    listed.sort(orders[elements.sort.value](at));
    let words = `${listed.length} of ${images.length} images.`;
    if (hasB) {
      const count = (kind) => fitting.filter((image) => outcome(image, at) === kind).length;
      words += ` From ${sides[at.a]} to ${sides[at.b]}: ${count("mended")} mended, ${count("broken")} broken, ` +
        `${count("unchanged")} unchanged; a Dice that moves by less than ${NOTICED} counts as unchanged.`;
    }
    section.querySelector(".found").textContent = words;
    shownA = elements.a.value;
    painter.disconnect();
    list.replaceChildren();
    extend();
  };

  const chip = ({ name, rgb }) => {
    const made = document.createElement("span"), colour = document.createElement("i");
    made.className = "chip";
    colour.style.background = `rgb(${rgb})`;
    made.append(colour, name);
    return made;
  };
  const stackOf = (name) => dialog.querySelector(`[data-panel=${name}]`);
  for (const name of ["truth", "prediction"]) stackOf(name).nextElementSibling.append(...classes.map(chip));
  const largeA = dialog.querySelector("[name=large-a]"), wipe = dialog.querySelector("[name=wipe]");
  const applyWipe = () => {
    const hasB = state().b !== null;
    wipe.closest("label").hidden = !hasB;
    wipe.closest("label").querySelector("output").textContent = `${wipe.value} %`;
    for (const panel of ["prediction", "errors"]) {
      const [first, second] = stackOf(panel).querySelectorAll("canvas");
      if (!first) continue;
      first.style.clipPath = hasB ? `inset(0 ${100 - wipe.value}% 0 0)` : "";
      second.style.clipPath = `inset(0 0 0 ${wipe.value}%)`;
      stackOf(panel).style.setProperty("--wipe", hasB ? `${wipe.value}%` : "-1%");
    }
  };
  const drawLarge = async () => {
    const image = listed[opened], at = state();
    dialog.querySelector("h3").textContent = shortName(image);
    const sizes = ["small", "middle", "large"];
    const named = classes.filter(({ id }) => image.classes.includes(id)).map(({ name }) => name);
    dialog.querySelector(".facts-line").textContent = [
      `${opened + 1} of ${listed.length}`, `A ${sides[at.a]}` + (at.b === null ? "" : `, B ${sides[at.b]}`),
      scoresOf(image, at), at.a === data.chosen ? image.words : "", `true: ${named.join(", ") || "no damage"}`,
      image.sizes.map((size) => sizes[size]).join(", "), `sample ${image.key}`,
    ].filter(Boolean).join(" \u00b7 ");
    largeA.value = at.a;
    largeA.closest("label").querySelector("output").textContent = sides[at.a];
    for (const view of ["photo", "truth", "prediction", "errors"]) {
      const stack = stackOf(view);
      let photo = stack.querySelector("img");
      if (!photo) {
        photo = document.createElement("img");
        stack.append(photo, document.createElement("canvas"), document.createElement("canvas"));
      }
      photo.alt = `${view}: ${image.name}`;
      const source = uri("jpeg", image.photo);
      if (photo.src !== source) photo.src = source;
      const [first, second] = stack.querySelectorAll("canvas");
      const isPrediction = view === "prediction" || view === "errors";
      second.hidden = true;
      await drawLayer(first, image, view, at.a);
      if (isPrediction && at.b !== null) {
        await drawLayer(second, image, view, at.b);
        second.hidden = !image.maps[at.b];
      }
    }
    applyWipe();
  };
  const step = (by) => {
    opened = (opened + by + listed.length) % listed.length;
    drawLarge();
  };
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    opened = listed.indexOf(images[Number(button.dataset.number)]);
    drawLarge();
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-step]");
    if (button) step(Number(button.dataset.step));
    if (event.target.closest("[data-close]")) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  largeA.addEventListener("input", () => {
    form.elements.a.value = largeA.value;
    drawLarge();
  });
  dialog.addEventListener("close", () => {
    const left = images.indexOf(listed[opened]);
    if (shownA !== form.elements.a.value) refresh();
    list.querySelector(`[data-number="${left}"]`)?.focus();
  });
  wipe.addEventListener("input", applyWipe);
  more.addEventListener("click", extend);
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  refresh();
}
