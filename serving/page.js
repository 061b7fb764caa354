"use strict";
(() => {
  const form = document.getElementById("ask"), files = document.getElementById("files"), camera = document.getElementById("camera");
  const drop = document.getElementById("drop"), cards = document.getElementById("cards"), said = document.getElementById("said");
  const explain = document.getElementById("explain"), key = document.getElementById("key"), button = form.querySelector("button");
  const percent = (share) => (100 * share).toFixed(1) + " %";
  document.querySelectorAll(".scripted").forEach((one) => { one.hidden = false; });

  const badge = (kind, words) => {
    const one = document.createElement("span");
    one.className = "badge " + kind;
    one.textContent = words;
    return one;
  };

  const card = (file) => {
    const one = document.getElementById("card").content.firstElementChild.cloneNode(true);
    one.querySelector(".file").textContent = file.name || "pasted picture";
    const image = one.querySelector("img");
    image.src = URL.createObjectURL(file);
    image.alt = "The picture " + (file.name || "that was pasted");
    image.addEventListener("error", () => image.remove());
    cards.append(one);
    return one;
  };

  const refuse = (one, words) => {
    one.querySelector(".badges").append(badge("reject", "REFUSED"));
    one.querySelector(".sure").textContent = words;
  };

  const show = (one, answer) => {
    if (answer.refused) { refuse(one, "It " + answer.refused + "."); return; }
    one.querySelector(".label").textContent = answer.labels.join(", ") || "none of the labels";
    if (answer.unsure) one.querySelector(".badges").append(badge("hold", "UNSURE"));
    if (answer.alarm) one.querySelector(".badges").append(badge("reject", "ALARM"));
    one.querySelector(".sure").textContent = "Confidence: " + percent(answer.confidence) + ", by version " + answer.version;
    for (const [name, share] of Object.entries(answer.probabilities)) {
      const label = document.createElement("span"), bar = document.createElement("progress"), figure = document.createElement("span");
      label.textContent = name;
      bar.max = 1; bar.value = share; bar.setAttribute("aria-label", name);
      figure.textContent = percent(share);
      one.querySelector(".bars").append(label, bar, figure);
    }
    one.querySelector(".because").textContent = answer.because.map((why) => "Unsure, for " + why + ".").join(" ");
    judge(one, answer);
    if (answer.overlay) {
      const image = one.querySelector("img");
      if (image) { image.src = answer.overlay.picture; image.alt = "The picture in grey, orange where covering it speaks against " + answer.overlay.label; }
    }
  };

  const authorised = () => (key && key.value ? { Authorization: "Bearer " + key.value } : {});

  const field = (name, checked) => {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox"; box.name = "label"; box.value = name; box.checked = checked;
    label.append(box, " " + name);
    return label;
  };

  // A person says of an answer whether it was right, or what the picture shows; shown where answers are kept.
  const judge = (one, answer) => {
    const feedback = one.querySelector(".feedback");
    if (!feedback) return;
    const right = feedback.querySelector(".right"), wrong = feedback.querySelector(".wrong"), kept = feedback.querySelector(".kept");
    const truth = feedback.querySelector(".truth"), classes = Object.keys(answer.probabilities);
    feedback.querySelector("legend").textContent = "Was the answer for " + one.querySelector(".file").textContent + " right?";
    right.hidden = !answer.labels.length;
    if ("several" in document.getElementById("card").dataset || answer.labels.length !== 1) {
      const words = document.createElement("span");
      words.textContent = "Wrong, it shows:";
      truth.replaceChildren(words, ...classes.map((name) => field(name, answer.labels.includes(name))));
    } else {
      for (const name of classes) if (!answer.labels.includes(name)) truth.querySelector("select").add(new Option(name));
    }
    let sending = false;
    const send = async (label) => {
      if (sending) return;
      sending = true;
      kept.textContent = "";
      try {
        const response = await fetch("/v1/feedback", {
          method: "POST", body: JSON.stringify({ id: answer.id, label }), headers: { "Content-Type": "application/json", ...authorised() },
        });
        const content = await response.json();
        if (response.ok) kept.textContent = "Kept: it is " + label.split(";").join(", ") + ". Thank you.";
        else kept.append(badge("reject", "NOT KEPT"), " " + content.detail);
      } catch {
        kept.append(badge("reject", "NOT KEPT"), " The server does not answer: try again in a moment.");
      }
      sending = false;
    };
    right.addEventListener("submit", (event) => { event.preventDefault(); send(answer.labels.join(";")); });
    wrong.addEventListener("submit", (event) => {
      event.preventDefault();
      const said = new FormData(wrong).getAll("label").join(";");
      if (said) send(said); else kept.textContent = "Say what it shows first.";
    });
    feedback.hidden = false;
  };

  const ask = async (file) => {
    const one = card(file), body = new FormData();
    body.append("file", file, file.name || "pasted.png");
    const headers = authorised();
    try {
      for (let tries = 0; ; tries++) {
        const response = await fetch("/v1/predict" + (explain.checked ? "?explain=true" : ""), { method: "POST", body, headers });
        const content = await response.json();
        if (response.status === 429 && tries < 5) {
          await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After") || 1)));
          continue;
        }
        if (!response.ok) { refuse(one, content.detail); return false; }
        show(one, { ...content.answers[0], version: content.version });
        return true;
      }
    } catch {
      refuse(one, "The server does not answer: try again in a moment.");
      return false;
    }
  };

  const askAll = async (chosen) => {
    const list = [...chosen];
    if (!list.length) { said.textContent = "Choose a picture first."; return; }
    cards.replaceChildren();
    button.disabled = true;
    said.textContent = list.length === 1 ? "Asking about 1 picture." : "Asking about " + list.length + " pictures.";
    let good = 0;
    const work = async () => { while (list.length) { if (await ask(list.shift())) good++; } };
    const count = list.length;
    await Promise.all([work(), work(), work()]);
    button.disabled = false;
    said.textContent = good + " of " + count + (count === 1 ? " picture" : " pictures") + " answered.";
  };

  form.addEventListener("submit", (event) => { event.preventDefault(); askAll([...files.files, ...camera.files]); });
  for (const input of [files, camera]) input.addEventListener("change", () => { if (input.files.length) askAll(input.files); });
  for (const name of ["dragover", "dragenter"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    askAll(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files];
    if (pasted.length) askAll(pasted);
  });
})();
