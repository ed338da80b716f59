// The chat page: one conversation in memory, streamed answers, feedback under each of them.
// Everything that comes from the model or the server is put in with textContent and nothing else.
"use strict";

const at = (id) => document.getElementById(id);
const part = (element, testId) => element.querySelector(`[data-testid="${testId}"]`);
const [conversation, composer, prompt, main] = ["conversation", "composer", "prompt", "main"].map(at);

let turns = []; // {role, content, element}: what the next request carries
let running = null; // AbortController of the answer on its way

// --- the server ---
class ServerError extends Error {}
async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("honed cannot be reached. Is the daemon running?");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const wait = response.headers.get("Retry-After");
  const message = body?.error?.message ?? `honed answered ${response.status}`;
  throw new ServerError(/^\d+$/.test(wait ?? "") ? `${message} Try again in ${wait} s.` : message);
}

const headers = { "Content-Type": "application/json" };
const post = (path, body, signal) => call(path, { method: "POST", headers, body: JSON.stringify(body), signal });

async function model() {
  const { data } = await (await call("/v1/models")).json();
  if (!data?.length) throw new ServerError("honed serves no model yet.");
  at("model").textContent = at("model").title = data[0].id;
  return data[0].id;
}

// Yields the JSON of each `data:` line; a stream that ends without [DONE] has broken off.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
    if (done) throw new ServerError("The answer broke off.");
  }
}

// --- one answer ---
function addTurn(role, content) {
  const element = at(`${role}-turn`).content.firstElementChild.cloneNode(true);
  part(element, "text").textContent = content;
  conversation.append(element);
  at("welcome").hidden = true;
  const turn = { role, content, element };
  turns.push(turn);
  return turn;
}

function say(element, message, isMild = false) {
  const problem = part(element, "problem");
  problem.textContent = message;
  problem.classList.toggle("mild", isMild);
  problem.hidden = false;
}

async function ask(text) {
  conversation.querySelectorAll("[data-returned]").forEach((element) => element.remove());
  const question = addTurn("user", text);
  const messages = turns.map(({ role, content }) => ({ role, content }));
  const answer = addTurn("assistant", "");
  const controller = (running = new AbortController());
  showRunning();
  follow(true);
  try {
    const request = { model: await model(), messages, stream: true, stream_options: { include_usage: true } };
    await receive(await post("/v1/chat/completions", request, controller.signal), answer);
    announce("Answer complete.");
  } catch (error) {
    broken(error, question, answer);
  } finally {
    answer.element.setAttribute("aria-busy", "false");
    if (running === controller) running = null;
    showRunning();
    follow();
  }
}

async function receive(response, answer) {
  for await (const event of events(response)) {
    if (event.error) throw new ServerError(event.error.message ?? "The answer broke off.");
    const choice = event.choices?.[0];
    if (choice?.delta?.content) {
      answer.content += choice.delta.content;
      part(answer.element, "text").append(choice.delta.content); // a string becomes a text node
      follow();
    }
    if (choice?.finish_reason === "length") say(answer.element, "Cut off at the length limit.", true);
    if (event.honed) showFacts(answer, event.honed);
  }
}

function broken(error, question, answer) {
  const isStopped = error.name === "AbortError";
  const message = isStopped ? "Stopped." : error instanceof ServerError ? error.message : "The connection was lost.";
  say(answer.element, message, isStopped);
  announce(isStopped ? message : "");
  if (answer.content) return;
  // Nothing came: the question goes back to where it was written, and out of what is sent next.
  turns = turns.filter((turn) => turn !== question && turn !== answer);
  question.element.classList.add("unanswered");
  if (prompt.value || !question.element.isConnected) return;
  prompt.value = question.content;
  for (const { element } of [question, answer]) element.dataset.returned = "yes"; // leaves when the next one is asked
}

function showFacts(answer, { interaction_id: interaction, checkpoint, uncertainty }) {
  const code = part(answer.element, "checkpoint");
  code.textContent = String(checkpoint ?? "").slice(0, 12);
  code.title = `Answered by checkpoint ${checkpoint}`;
  const gauge = part(answer.element, "uncertainty");
  gauge.hidden = typeof uncertainty !== "number";
  if (!gauge.hidden) {
    gauge.querySelector("rect").setAttribute("width", Math.min(Math.max(uncertainty, 0), 2));
    gauge.dataset.level = uncertainty < 0.5 ? "sure" : uncertainty < 1 ? "unsure" : "lost";
    gauge.querySelector("span").textContent = uncertainty.toFixed(2);
    gauge.title = `Uncertainty ${uncertainty.toFixed(2)} nats a token: near 0 the model was sure, above 1 it guessed`;
  }
  answer.element.querySelector("footer").hidden = false;
  if (interaction) offerFeedback(answer, interaction);
  else answer.element.querySelector(".tools").hidden = true;
}

// --- feedback ---
function offerFeedback(answer, interaction) {
  const { element } = answer;
  const thumbs = ["up", "down"].map((rating) => part(element, rating));
  const mark = (pressed) => thumbs.forEach((thumb) => thumb.setAttribute("aria-pressed", String(thumb === pressed)));
  const rate = async (thumb) => {
    if (await give(element, { interaction_id: interaction, rating: thumb.name }, "Thanks, noted.")) mark(thumb);
  };
  thumbs.forEach((thumb) => thumb.addEventListener("click", () => rate(thumb)));
  part(element, "correct").addEventListener("click", () => edit(answer));
  const form = part(element, "correction");
  part(form, "cancel").addEventListener("click", () => finishEdit(answer));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") finishEdit(answer);
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await saveCorrection(answer, interaction, form)) mark(null);
  });
}

async function give(element, feedback, thanks) {
  if (element.dataset.saving) return false; // the buttons stay enabled: a disabled one would lose the focus
  element.dataset.saving = "yes";
  const note = part(element, "note");
  note.textContent = "";
  try {
    await post("/v1/feedback", feedback);
    note.textContent = thanks;
    note.classList.remove("failed");
    return true;
  } catch (error) {
    note.textContent = `Not saved: ${error.message}`;
    note.classList.add("failed");
    return false;
  } finally {
    delete element.dataset.saving;
  }
}

function edit(answer) {
  const form = part(answer.element, "correction");
  if (form.hidden) form.elements.correction.value = answer.content;
  showEditor(answer, true);
  form.elements.correction.focus();
}

function finishEdit(answer) {
  showEditor(answer, false);
  part(answer.element, "correct").focus();
}

function showEditor({ element }, isOpen) {
  part(element, "correction").hidden = !isOpen;
  part(element, "text").hidden = isOpen;
  element.querySelector(".tools").hidden = isOpen;
  part(element, "note").textContent = "";
}

async function saveCorrection(answer, interaction, form) {
  const [correction, comment] = ["correction", "comment"].map((name) => form.elements[name].value.trim());
  const isChanged = correction && correction !== answer.content.trim();
  part(answer.element, "note").textContent = isChanged ? "" : "Write what it should have said.";
  if (!isChanged) return false;
  const feedback = { interaction_id: interaction, correction, ...(comment && { comment }) };
  if (!(await give(answer.element, feedback, ""))) return false;
  answer.content = correction; // the next turns build on what it should have said
  part(answer.element, "text").textContent = correction;
  finishEdit(answer);
  part(answer.element, "note").textContent = "Corrected, thank you.";
  return true;
}

// --- the page ---
const announce = (message) => { at("announcement").textContent = message; };

function showRunning() {
  at("send").hidden = Boolean(running);
  at("stop").hidden = !running;
}

// Keeps the newest words in sight, unless the person has scrolled up to read.
function follow(isForced = false) {
  if (isForced || main.scrollHeight - main.scrollTop - main.clientHeight < 120) main.scrollTop = main.scrollHeight;
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value.trim();
  if (!text || running) return;
  prompt.value = "";
  ask(text);
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});
at("stop").addEventListener("click", () => { running?.abort(); prompt.focus(); });
at("new-chat").addEventListener("click", () => {
  running?.abort();
  turns = [];
  conversation.replaceChildren();
  at("welcome").hidden = false;
  announce("New chat.");
  prompt.focus();
});
model().catch((error) => { at("model").textContent = error.message; });
