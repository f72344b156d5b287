// The JavaScript client in the comparison: the WriteApi as its examples show it, with its listeners of failed and skipped
// lines, a flush that includes what waits for a retry, and dispose, which alone says how many lines were left.
// What it is told goes to the journal, whose words are in ../README.md.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const {parseArgs} = require('node:util')
const {InfluxDB, Point, HttpError} = require('@influxdata/influxdb-client')

const BASE = 1_700_000_000_000_000_000n
const STEP = 1_000_000n
const texts = {url: '', journal: '', spool: '', special: 'none'} // spool: not known to this client
const whole = {first: 0, burst: 0, points: 0, rate: 100, batch: 100, 'flush-ms': 1000, every: 100}
const options = {}
for (const name of [...Object.keys(texts), ...Object.keys(whole)]) options[name] = {type: 'string'}
const args = {...texts, ...whole, ...parseArgs({options}).values}
for (const name of Object.keys(whole)) args[name] = Number(args[name])

const journal = fs.openSync(args.journal, 'a')
const note = (...words) => fs.writeSync(journal, words.join(' ') + '\n')
// The numbers of the points of a batch.
const numbers = (lines) => lines.map((l) => (BigInt(l.slice(l.lastIndexOf(' ') + 1)) - BASE) / STEP).join(' ')

let closed = false
const maxRetries = 5
const client = new InfluxDB({url: args.url, token: 'side-token'})
const api = client.getWriteApi('side', 'side', 'ns', {
  batchSize: args.batch,
  flushInterval: args['flush-ms'],
  maxRetries,
  // Called with each failure; the lines are given up when it may not pass, or was the last try.
  writeFailed(error, lines, attempt, expires) {
    const passes = !(error instanceof HttpError) || error.statusCode >= 429
    const last = closed || !passes || attempt > maxRetries || expires <= Date.now()
    note(last ? 'f' : 'd', numbers(lines))
  },
  writeRetrySkipped: (entry) => note('f', numbers(entry.lines)),
})

const calls = []
function put(i) {
  let [measurement, value] = ['side', (i % 1000) / 2]
  const odd = i % args.every === Math.floor(args.every / 2)
  if (odd && args.special === 'poison') measurement = 'poison'
  if (odd && args.special === 'nan') value = i % (2 * args.every) >= args.every ? Infinity : NaN
  const before = performance.now()
  try {
    const point = new Point(measurement).tag('device', `d${i % 10}`).timestamp(String(BASE + BigInt(i) * STEP))
    if (odd && args.special === 'conflict') point.stringField('value', 'broken')
    else point.floatField('value', value)
    api.writePoint(point)
  } catch (error) {
    note('r', i, String(error).replaceAll('\n', ' '))
  }
  calls.push(performance.now() - before)
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))

async function main() {
  note('s')
  let i = args.first
  for (const end = args.first + args.burst; i < end; i++) {
    put(i)
    if (i % 1000 === 999) await new Promise(setImmediate) // let it send
  }
  note('b')
  const began = performance.now()
  for (let n = 0; n < args.points; n++) {
    const due = began + (n * 1000) / args.rate - performance.now()
    if (due > 0) await sleep(due)
    put(i)
    note('w', i)
    i++
  }
  calls.sort((a, b) => a - b)
  const manifest = path.join(path.dirname(require.resolve('@influxdata/influxdb-client')), '../package.json')
  const {version} = JSON.parse(fs.readFileSync(manifest, 'utf8'))
  const result = {client: '@influxdata/influxdb-client', version, next: i}
  if (calls.length > 0) {
    result.longest_ms = calls[calls.length - 1]
    result.p999_ms = calls[Math.floor(((calls.length - 1) * 999) / 1000)]
  }
  note('c', JSON.stringify(result))
  const before = performance.now()
  let said = 'flush resolved'
  try {
    await api.flush(true)
  } catch (error) {
    said = `flush rejected: ${String(error).replaceAll('\n', ' ')}`
  }
  closed = true
  const left = api.dispose()
  if (left > 0) note('n', left)
  result.close_ms = performance.now() - before
  result.close_says = `${said}; dispose: ${left} lines left`
  process.on('exit', () => console.log(JSON.stringify(result)))
}
main()
