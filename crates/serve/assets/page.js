// Everything works without this: it copies, remembers light or dark, and keeps the figures fresh.
"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["light", "dark"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const show = (theme) => { if (themes.includes(theme)) root.dataset.theme = theme; };
  // Before anything is drawn, so that nothing flashes.
  show(stored());

  async function copy(button) {
    const text = document.getElementById(button.dataset.copy).textContent.replace(/\n$/, "");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Browsers have no clipboard for pages of plain HTTP.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const label = button.textContent;
    const copied = document.body.dataset.copied;
    if (label === copied) return;
    button.textContent = copied;
    document.getElementById("said").textContent = copied;
    setTimeout(() => { button.textContent = label; document.getElementById("said").textContent = ""; }, 1500);
  }

  async function refresh(figures) {
    if (document.hidden || figures.contains(document.activeElement)) return;
    const answer = await fetch(figures.dataset.from).catch(() => null);
    if (answer?.ok) figures.innerHTML = await answer.text();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("button.copy")) {
      button.hidden = false;
      button.addEventListener("click", () => copy(button));
    }
    const theme = document.getElementById("theme");
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
      const next = themes[1 - themes.indexOf(now)];
      show(next);
      try { localStorage.setItem("theme", next); } catch { /* it lasts for this page */ }
    });
    const figures = document.getElementById("figures");
    if (figures) setInterval(() => refresh(figures), 5000);
  });
})();
