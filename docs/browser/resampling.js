// Resample with a windowed sinc as steep as that of soxr's quality "HQ", which the models were trained with. The
// resampler inside browsers is shorter; its high frequencies differ enough to change probabilities.

const PASSBAND = 0.913; // of the lower of both Nyquist frequencies; the stopband begins at 1
const ATTENUATION = 126; // dB, 20 bits and some
const BETA = 0.1102 * (ATTENUATION - 8.7); // of the Kaiser window

/** Modified Bessel function of the first kind, order 0. */
function bessel(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > sum * 1e-17; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

/** Return samples at another rate, as a Float32Array. Rates are whole numbers in Hz. */
export function resample(samples, from, to) {
  if (from === to) return samples;
  const up = to / gcd(from, to), down = from / gcd(from, to);
  const low = Math.min(from, to);
  const cutoff = (low * (PASSBAND + 1)) / 2 / from; // in half cycles per input sample
  const transition = (Math.PI * low * (1 - PASSBAND)) / from; // in radians per input sample
  const half = Math.ceil((ATTENUATION - 8) / (2.285 * transition) / 2); // input samples on either side
  const phases = new Array(up); // kernel of each position between two input samples, made when first needed
  const result = new Float32Array(Math.ceil((samples.length * up) / down));
  for (let n = 0; n < result.length; n++) {
    const phase = (n * down) % up, first = (n * down - phase) / up - half + 1;
    const kernel = (phases[phase] ??= kernelAt(phase / up, half, cutoff));
    const end = Math.min(2 * half, samples.length - first);
    let sum = 0;
    for (let k = Math.max(0, -first); k < end; k++) sum += kernel[k] * samples[first + k];
    result[n] = sum;
  }
  return result;
}

function kernelAt(fraction, half, cutoff) {
  return Float64Array.from({length: 2 * half}, (_, k) => {
    const t = k - half + 1 - fraction, x = Math.PI * cutoff * t;
    const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - (t / half) ** 2))) / bessel(BETA);
    return cutoff * (x === 0 ? 1 : Math.sin(x) / x) * window;
  });
}
