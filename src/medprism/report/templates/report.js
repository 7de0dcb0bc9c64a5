// Chooses which pair of scans a subject's pictures show. Without scripts the first pair stays.
for (const viewer of document.querySelectorAll(".viewer")) {
  if (!viewer.querySelector("script")) continue;
  const images = JSON.parse(viewer.querySelector("script").textContent);
  const pairs = JSON.parse(viewer.dataset.pairs);
  const ranges = JSON.parse(viewer.dataset.ranges);
  const [source, target] = viewer.querySelectorAll("select");
  const show = () => {
    const from = source.value;
    const targets = pairs.filter((pair) => pair[0] === from).map((pair) => pair[1]);
    for (const option of target.options) option.hidden = option.disabled = !targets.includes(option.value);
    if (!targets.includes(target.value)) target.value = targets[0];
    const to = target.value;
    for (const frame of viewer.querySelectorAll("[data-part]")) {
      const { plane, part } = frame.dataset;
      const key = { source: `${plane}/true/${from}`, made: `${plane}/made/${from}/${to}`,
        truth: `${plane}/true/${to}`, diff: `${plane}/diff/${from}/${to}` }[part];
      const image = frame.querySelector("img");
      image.hidden = !(key in images);
      if (key in images) image.src = images[key];
    }
    for (const name of viewer.querySelectorAll("[data-name]")) name.textContent = name.dataset.name === "from" ? from : to;
    for (const range of viewer.querySelectorAll("[data-range]")) range.textContent = ranges[to] ?? "–";
  };
  const size = viewer.querySelector("button");
  size.addEventListener("click", () => { size.textContent = viewer.classList.toggle("large") ? "smaller" : "larger"; });
  source.addEventListener("change", show);
  target.addEventListener("change", show);
  show();
}
// The same for outlines: which scans were given, which region, on which scan.
for (const viewer of document.querySelectorAll(".outliner")) {
  const { images, paths } = JSON.parse(viewer.querySelector("script").textContent);
  const chosen = () => Object.fromEntries([...viewer.querySelectorAll("select")].map((s) => [s.dataset.choose, s.value]));
  const show = () => {
    const { given, region, scan } = chosen();
    for (const frame of viewer.querySelectorAll("[data-plane]")) {
      const { plane } = frame.dataset;
      frame.querySelector("img").src = images[`${plane}/${scan}`];
      frame.querySelector(".truth").setAttribute("d", paths[`${plane}/${region}/truth`]);
      frame.querySelector(".found").setAttribute("d", paths[`${plane}/${region}/${given}`]);
    }
  };
  const size = viewer.querySelector("button");
  size.addEventListener("click", () => { size.textContent = viewer.classList.toggle("large") ? "smaller" : "larger"; });
  for (const choice of viewer.querySelectorAll("select")) choice.addEventListener("change", show);
  show();
}
const links = [...document.querySelectorAll("nav a")];
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting)
    for (const link of links) link.classList.toggle("here", link.hash === `#${entry.target.id}`);
}, { rootMargin: "-15% 0px -75% 0px" });
for (const section of document.querySelectorAll("section[id]")) watch.observe(section);
