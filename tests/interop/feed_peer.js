'use strict'
// An npm feed for the interop tests, driven by tests/support/npm_feed.py: one feed, its links over TCP on loopback.
//
//   node feed_peer.js DIALECT DIRECTORY
//
// Commands are lines of JSON on stdin, {"id": n, "do": name, ...}; each is answered by a line {"id": n, ...} on stdout,
// in the order in which they are done, or by {"id": n, "failed": message}. Blocks are written in hexadecimal.
const net = require('net')
const path = require('path')
const readline = require('readline')
const { createRequire } = require('module')

const [, , dialect, directory] = process.argv
const load = createRequire(path.join(__dirname, dialect, 'package.json'))
const makeFeed = load({ dweb: 'ddatabase', hypercore: 'hypercore' }[dialect])
const Protocol = createRequire(load.resolve({ dweb: 'ddatabase', hypercore: 'hypercore' }[dialect]))(
  { dweb: '@ddatabase/protocol', hypercore: 'hypercore-protocol' }[dialect])

const hex = buffer => buffer.toString('hex')
const bytes = text => Buffer.from(text, 'hex')
const call = (object, method, ...rest) => new Promise((resolve, reject) => {
  object[method](...rest, (err, ...values) => err ? reject(err) : resolve(values.length > 1 ? values : values[0]))
})

let feed = null
const streams = new Set()
const seen = { acks: [], messages: [], errors: [], ends: 0, streamMessages: [] }
const extensions = new Map()
let waiters = []
const happened = () => { const woken = waiters; waiters = []; for (const wake of woken) wake() }
const until = async condition => { while (!condition()) await new Promise(resolve => waiters.push(resolve)) }

function join (socket, initiator, options) {
  const given = { ...options }
  if (given.seed) given.keyPair = Protocol.keyPair(bytes(given.seed))
  const stream = feed.replicate(initiator, given)
  streams.add(stream)
  stream.on('ack', ack => { seen.acks.push(ack.start); happened() })
  stream.on('error', err => { seen.errors.push(err.message); happened() })
  stream.on('close', () => { streams.delete(stream); seen.ends++; happened() })
  if (given.streamExtension) {
    const extension = stream.registerExtension(given.streamExtension, {
      encoding: 'utf-8',
      onmessage (message) { seen.streamMessages.push(message); extension.send('re: ' + message); happened() }
    })
  }
  socket.setNoDelay(true)
  socket.on('error', () => {})
  socket.pipe(stream).pipe(socket)
}

const commands = {
  async open ({ key, options }) {
    feed = makeFeed(directory, key ? bytes(key) : null, options || {})
    feed.on('error', err => { seen.errors.push(err.message); happened() })
    await call(feed, 'ready')
    return { key: hex(feed.key), discoveryKey: hex(feed.discoveryKey), length: feed.length, writable: feed.writable }
  },
  async listen ({ options }) {
    const server = net.createServer(socket => join(socket, false, options))
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
    return { port: server.address().port }
  },
  async connect ({ port, options }) { join(net.connect(port, '127.0.0.1'), true, options); return {} },
  async append ({ values }) { await call(feed, 'append', values.map(bytes)); return { length: feed.length } },
  async appendJson ({ values }) { await call(feed, 'append', values); return { length: feed.length } },
  async get ({ index, options }) {
    const value = await call(feed, 'get', index, options || {})
    return { value: Buffer.isBuffer(value) ? hex(value) : value }
  },
  async batch ({ start, end }) { return { values: (await call(feed, 'getBatch', start, end)).map(hex) } },
  async seek ({ offset, options }) {
    const [block, place] = await call(feed, 'seek', offset, options || {})
    return { block, place }
  },
  async update ({ options }) { await call(feed, 'update', options || {}); return { length: feed.length } },
  async download ({ start, end }) { await call(feed, 'download', { start, end }); return {} },
  async switch ({ downloading, uploading }) {
    feed.setDownloading(downloading)
    feed.setUploading(uploading)
    return {}
  },
  async clear ({ start, end }) { await call(feed, 'clear', start, end); return {} },
  async signature ({ index }) {
    const found = await call(feed, 'signature', index)
    return { index: found.index, signature: hex(found.signature) }
  },
  async roots ({ index }) {
    return { roots: (await call(feed, 'rootHashes', index)).map(node => [node.index, hex(node.hash), node.size]) }
  },
  async state () {
    return {
      length: feed.length,
      remoteLength: feed.remoteLength,
      downloaded: feed.downloaded(),
      peers: feed.peers.length,
      remoteKeys: feed.peers.map(peer => hex(peer.remotePublicKey))
    }
  },
  async extension ({ name, encoding }) {
    extensions.set(name, feed.registerExtension(name, {
      encoding,
      onmessage (message, peer) { seen.messages.push(message); happened() },
      onerror (err) { seen.errors.push(err.message); happened() }
    }))
    return {}
  },
  async broadcast ({ name, value }) { extensions.get(name).broadcast(value); return {} },
  async peers ({ count }) {
    feed.on('peer-open', happened)
    await until(() => feed.peers.filter(peer => peer.remoteOpened).length >= count)
    return {}
  },
  async acks ({ count }) { await until(() => seen.acks.length >= count); return { acks: seen.acks } },
  async messages ({ count }) { await until(() => seen.messages.length >= count); return { messages: seen.messages } },
  async errors ({ count }) { await until(() => seen.errors.length >= count); return { errors: seen.errors } },
  async streamMessages ({ count }) {
    await until(() => seen.streamMessages.length >= count)
    return { messages: seen.streamMessages }
  },
  async ends ({ count }) { await until(() => seen.ends >= count); return { ends: seen.ends } },
  async quit () { setImmediate(() => process.exit(0)); return {} }
}

const say = value => process.stdout.write(JSON.stringify(value) + '\n')
const die = err => { say({ error: String(err && err.stack) }); process.exit(1) }
process.on('unhandledRejection', die)
process.on('uncaughtException', die)

readline.createInterface({ input: process.stdin }).on('line', line => {
  const command = JSON.parse(line)
  commands[command.do](command).then(
    answer => say({ id: command.id, ...answer }),
    err => say({ id: command.id, failed: err.message })
  )
}).on('close', () => process.exit(0))
