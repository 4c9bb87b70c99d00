const graph = document.querySelector(".graph");
const entries = [...document.querySelectorAll("#axes li")];
let pinned = null;

function show(marks) {
  for (const old of document.querySelectorAll(".on")) old.classList.remove("on");
  graph.classList.toggle("focus", marks.length > 0);
  for (const mark of marks) {
    for (const part of graph.getElementsByClassName(mark)) part.classList.add("on");
    for (const entry of entries) if (entry.dataset.mark === mark) entry.classList.add("on");
  }
}

const rest = () => show(pinned ? [pinned] : []);

for (const entry of entries) {
  const mark = entry.dataset.mark;
  entry.addEventListener("mouseenter", () => show([mark]));
  entry.addEventListener("mouseleave", rest);
  const pin = () => {
    pinned = pinned === mark ? null : mark;
    rest();
    const first = graph.getElementsByClassName(mark)[0];
    if (pinned && first) first.scrollIntoView({ block: "center", inline: "nearest", behavior: "smooth" });
  };
  entry.addEventListener("click", pin);
  entry.addEventListener("keydown", (event) => { if (event.key === "Enter") pin(); });
}

for (const part of graph.querySelectorAll(".line")) {
  const marks = [...part.classList].filter((name) => /^a\d+$/.test(name)).slice(0, 1);
  part.addEventListener("mouseenter", () => { if (marks.length) show(marks); });
  part.addEventListener("mouseleave", rest);
}

document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const entry of entries) entry.hidden = !entry.dataset.name.toLowerCase().includes(wanted);
});
