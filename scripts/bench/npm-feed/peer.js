// The npm side of the feed benchmark: one task per process, one line of JSON as the result.
//   node peer.js PACKAGE append DIR SIZE COUNT BATCH
//   node peer.js PACKAGE read   DIR ORDER ROUNDS       ORDER: linear or random
//   node peer.js PACKAGE open   DIR
//   node peer.js PACKAGE serve  DIR                    -> {"port"}; after a line on stdin, what serving has cost
//   node peer.js PACKAGE fetch  DIR KEY PORT COUNT
'use strict'
const crypto = require('crypto')
const net = require('net')

const [, , name, verb, dir, ...rest] = process.argv
const feedOf = require(name)
const IN_FLIGHT = 16 // reads at a time: the packages read through a pool of threads

const say = value => process.stdout.write(JSON.stringify(value) + '\n')
const die = err => { process.stderr.write(String(err && err.stack) + '\n'); process.exit(1) }
process.on('unhandledRejection', die)

function call (object, method, ...args) {
  return new Promise((resolve, reject) => {
    object[method](...args, (err, value) => err ? reject(err) : resolve(value))
  })
}

function meter () {
  const cpu = process.cpuUsage()
  const started = process.hrtime.bigint()
  return () => {
    const seconds = Number(process.hrtime.bigint() - started) / 1e9
    const used = process.cpuUsage(cpu)
    return { seconds, cpu: (used.user + used.system) / 1e6, rss_mib: process.resourceUsage().maxRSS / 1024 }
  }
}

async function append (size, count, batch) {
  const feed = feedOf(dir)
  await call(feed, 'ready')
  const batches = []
  const content = crypto.randomBytes(size * batch)
  for (let start = 0; start < count; start += batch) {
    batches.push(Array.from({ length: Math.min(batch, count - start) }, (_, i) => content.subarray(i * size, (i + 1) * size)))
  }
  const spent = meter()
  for (const blocks of batches) await call(feed, 'append', blocks)
  say(spent())
  process.exit(0)
}

async function read (order, rounds) {
  const feed = feedOf(dir)
  await call(feed, 'ready')
  const indexes = Array.from({ length: feed.length }, (_, i) => i)
  if (order === 'random') {
    let state = 1
    for (let i = indexes.length - 1; i > 0; i--) {
      state = (state * 48271) % 2147483647
      const j = state % (i + 1)
      ;[indexes[i], indexes[j]] = [indexes[j], indexes[i]]
    }
  }
  const found = []
  for (let round = 0; round < rounds; round++) {
    let next = 0
    const worker = async () => { while (next < indexes.length) await call(feed, 'get', indexes[next++]) }
    const spent = meter()
    await Promise.all(Array.from({ length: IN_FLIGHT }, worker))
    found.push(spent())
  }
  say(found)
  process.exit(0)
}

async function open () {
  const spent = meter()
  const feed = feedOf(dir)
  await call(feed, 'ready')
  const found = spent()
  say({ ...found, length: feed.length })
  process.exit(0)
}

async function serve () {
  const feed = feedOf(dir)
  await call(feed, 'ready')
  let spent = null
  const server = net.createServer(socket => {
    spent = meter()
    socket.setNoDelay(true)
    socket.on('error', () => {})
    const stream = feed.replicate(false, { live: true })
    stream.on('error', () => {})
    socket.pipe(stream).pipe(socket)
  })
  server.listen(0, '127.0.0.1', () => say({ port: server.address().port, key: feed.key.toString('hex') }))
  process.stdin.once('data', () => { say(spent()); process.exit(0) })
}

async function fetch (key, port, count) {
  const feed = feedOf(dir, Buffer.from(key, 'hex'), { sparse: true })
  await call(feed, 'ready')
  const spent = meter()
  const socket = net.connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  const stream = feed.replicate(true, { live: true })
  stream.on('error', die)
  socket.pipe(stream).pipe(socket)
  await call(feed, 'download', { start: 0, end: count })
  say(spent())
  process.exit(0)
}

const numbers = rest.map(Number)
if (verb === 'append') append(...numbers)
else if (verb === 'read') read(rest[0], numbers[1])
else if (verb === 'open') open()
else if (verb === 'serve') serve()
else if (verb === 'fetch') fetch(rest[0], numbers[1], numbers[2])
else die(new Error(`unknown verb ${verb}`))
