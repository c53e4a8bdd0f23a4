// Tag audio with an exported model: decode, mix to mono, resample, cut windows, run the network, average.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import {resample} from "./resampling.js";
import {sampleRateOf} from "./sample_rate.js";

ort.env.wasm.numThreads = 1; // threads need headers that plain file servers do not send

const ONE_STEP = 2 ** -15; // of 16-bit audio; below it, all is silence

/** Load the model of a folder; returns an object with `model` (what model.json says), `tag` and `tagFile`. */
export async function loadTagger(folder = new URL("./", import.meta.url)) {
  const [model, weights] = await Promise.all([
    fetched(new URL("model.json", folder)).then((answer) => answer.json()),
    fetched(new URL("model.onnx", folder)).then((answer) => answer.arrayBuffer()),
  ]);
  const session = await ort.InferenceSession.create(weights, {executionProviders: ["wasm"]});
  const tag = (samples, progress) => tagSamples(session, model, samples, progress);
  return {model, tag, tagFile: async (file, progress) => tag(await decode(await file.arrayBuffer(), model), progress)};
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url.pathname} is missing. Write a folder with it: docs/browser/build.py.`);
  return answer;
}

/** Decode a file and return its samples, mono, at the model's rate. */
export async function decode(bytes, model) {
  const rate = sampleRateOf(bytes) ?? model.sample_rate; // if it is not known, the browser resamples
  const buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / buffer.numberOfChannels;
  }
  return resample(mono, rate, model.sample_rate);
}

/** Cut windows, as keras_musictag/models/windows.py does. */
export function cut(samples, model) {
  if (samples.length < model.least_samples) throw new Error("The sound is too short.");
  if (!samples.some((sample) => Math.abs(sample) >= ONE_STEP)) throw new Error("The sound is silent.");
  const {padding, grid, window_samples: size, window_step: step} = model;
  const length = Math.max(samples.length, size - 2 * padding);
  const track = new Float32Array(length + 2 * padding); // zeros at both ends
  track.set(samples, padding);
  if (model.short === "repeat")
    for (let i = samples.length; i < length; i++) track[padding + i] = samples[i % samples.length];
  const last = Math.floor((track.length - size) / grid) * grid;
  const starts = [];
  for (let start = 0; start <= last; start += step) starts.push(start);
  if (model.remainder === "align" && last > starts.at(-1)) starts.push(last);
  return starts.map((start) => track.subarray(start, start + size));
}

/** Return the probability of each tag, in the order of `model.tags`; `progress` is called with shares from 0 to 1. */
async function tagSamples(session, model, samples, progress = () => {}) {
  const windows = cut(samples, model);
  const mean = new Float64Array(model.tags.length);
  for (const [number, window] of windows.entries()) {
    progress(number / windows.length);
    await new Promise((resolve) => setTimeout(resolve)); // let the page be drawn
    const {probabilities} = await session.run({waveform: new ort.Tensor("float32", window, [1, window.length])});
    probabilities.data.forEach((p, column) => (mean[column] += p / windows.length));
  }
  return Array.from(mean);
}
