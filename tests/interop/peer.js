'use strict'
// An npm peer for the interop tests, driven by tests/support/npm.py.
//
//   node peer.js DIALECT make  STORE STEPS.json      make the drives of STEPS in STORE, print their keys and versions
//   node peer.js DIALECT serve STORE KEY [PORT]      serve STORE over TCP on loopback; commands on stdin, see `serve`
//   node peer.js DIALECT read  KEY HOST:PORT STORE   read the drive at KEY from a peer, print its manifest
//                                                    "swarm" for PORT or HOST:PORT: announce, or look for, the drive
//   node peer.js DIALECT dump  STORE KEY             print the manifest of a drive held in STORE
//
// Every answer is one line of JSON on stdout. Known faults of these packages are worked around: files are read through
// streams, never through descriptors, and directories are listed one at a time, as recursive listings repeat entries
// below nested mounts.
const crypto = require('crypto')
const fs = require('fs')
const net = require('net')
const path = require('path')
const readline = require('readline')
const { createRequire } = require('module')

const [, , dialect, verb, ...args] = process.argv
const NAMES = {
  dweb: { store: 'basestorex', drive: 'ddrive', networker: '@basestore/networker' },
  hypercore: { store: 'corestore', drive: 'hyperdrive', networker: '@corestore/networker' }
}[dialect]
const load = createRequire(path.join(__dirname, dialect, 'package.json'))
const Store = load(NAMES.store)
const makeDrive = load(NAMES.drive)

const DEPTH_LIMIT = 64 // nested drives and directories; stops a walk through drives that mount each other
const say = value => process.stdout.write(JSON.stringify(value) + '\n')
const die = err => { say({ error: String(err && err.stack) }); process.exit(1) }
process.on('unhandledRejection', die)
process.on('uncaughtException', die)

const call = (object, method, ...rest) => new Promise((resolve, reject) => {
  object[method](...rest, (err, value) => err ? reject(err) : resolve(value))
})
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

// The bytes of a made file: the same function stands in tests/support/tree.py.
const content = (seed, size) => size === 0
  ? Buffer.alloc(0)
  : crypto.createHash('shake128', { outputLength: size }).update(seed).digest()

async function openStore (directory) {
  const store = new Store(directory, { sparse: true })
  store.on('error', die)
  await store.ready()
  return store
}

async function openDrive (store, key, options) {
  const drive = key
    ? makeDrive(store, Buffer.from(key, 'hex'), options)
    : makeDrive(store, null, options)
  drive.on('error', die)
  await call(drive, 'ready')
  return drive
}

// ---------------------------------------------------------------------------------------------------------- making
async function make (directory, stepsFile) {
  const { steps } = JSON.parse(fs.readFileSync(stepsFile, 'utf8'))
  const store = await openStore(directory)
  const drives = new Map()
  const marks = new Map()
  for (const step of steps) {
    if (!drives.has(step.drive)) {
      const namespace = step.drive === 'root' ? undefined : step.drive
      drives.set(step.drive, await openDrive(store, null, { namespace }))
    }
    await apply(drives.get(step.drive), step, drives, marks)
  }
  const made = {}
  for (const [name, drive] of drives) {
    const feed = await call(drive, 'getContent')
    made[name] = { key: drive.key.toString('hex'), version: drive.version, content: feed.length }
  }
  say({ drives: made })
  process.exit(0)
}

async function apply (drive, step, drives, marks) {
  const about = { mode: step.mode, uid: step.uid, gid: step.gid, mtime: step.mtime, ctime: step.mtime }
  switch (step.do) {
    case 'file': return writeFile(drive, step.path, content(step.path + step.seed, step.size), about, step.chunk)
    case 'directory': return call(drive, 'mkdir', step.path, about)
    case 'link': return call(drive, 'symlink', step.target, step.path)
    case 'unlink': return call(drive, 'unlink', step.path)
    case 'copy': return call(drive, 'copy', step.path, step.to)
    case 'metadata': return call(drive, 'setMetadata', step.path, step.name, Buffer.from(step.value))
    case 'mark': return marks.set(step.mark, drive.version)
    case 'mount': {
      const options = step.mark ? { version: marks.get(step.mark) } : {}
      return call(drive, 'mount', step.path, drives.get(step.of).key, options)
    }
    default: throw new Error('unknown step ' + step.do)
  }
}

function writeFile (drive, name, bytes, about, chunk) {
  if (!chunk) return call(drive, 'writeFile', name, bytes, about)
  return new Promise((resolve, reject) => {
    const stream = drive.createWriteStream(name, about)
    stream.on('error', reject).on('finish', resolve)
    for (let start = 0; start < bytes.length; start += chunk) stream.write(bytes.subarray(start, start + chunk))
    stream.end()
  })
}

// --------------------------------------------------------------------------------------------------------- reading
async function manifest (drive, { hash = true } = {}) {
  const entries = {}
  await walk(drive, '/', 0, entries, hash)
  return entries
}

async function walk (drive, directory, depth, entries, hash) {
  if (depth > DEPTH_LIMIT) throw new Error('too deep: ' + directory)
  for (const name of [...new Set(await call(drive, 'readdir', directory))].sort()) {
    const full = path.posix.join(directory, name)
    const stat = await call(drive, 'lstat', full)
    const entry = { mode: stat.mode & 0o7777, mtime: +stat.mtime, uid: stat.uid, gid: stat.gid }
    const kind = stat.mode & 0o170000
    if (kind === 0o120000) {
      entries[full] = { type: 'link', target: stat.linkname }
    } else if (kind === 0o040000) {
      entries[full] = { type: 'directory', mounted: Boolean(stat.mount), ...entry }
      await walk(drive, full, depth + 1, entries, hash)
    } else {
      entries[full] = { type: 'file', size: stat.size, ...entry }
      if (hash) entries[full].sha256 = await sha256(drive, full, stat.size)
    }
  }
}

function sha256 (drive, name, size) {
  return new Promise((resolve, reject) => {
    const hash = crypto.createHash('sha256')
    let bytes = 0
    drive.createReadStream(name)
      .on('data', chunk => { bytes += chunk.length; hash.update(chunk) })
      .on('error', reject)
      .on('end', () => {
        if (bytes === size) resolve(hash.digest('hex'))
        else reject(new Error(`${name}: ${bytes} of ${size} bytes`))
      })
  })
}

async function read (key, address, directory) {
  const store = await openStore(directory)
  const drive = makeDrive(store, Buffer.from(key, 'hex'))
  drive.on('error', die)
  await call(drive, 'ready')
  if (address === 'swarm') await swarm(store, drive, { lookup: true })
  else connect(store, address)
  await newest(drive.metadata)
  await catchUp(store, drive, '/', 0)
  say({ manifest: await manifest(drive), version: drive.version })
  process.exit(0)
}

function connect (store, address) {
  const [host, port] = address.split(':')
  const socket = net.connect(Number(port), host)
  join(socket, store.replicate(true, { live: true, encrypt: true }))
}

// Join the topic of a drive as programs do; without nodes to start from, the DHT stays empty and only the LAN is left.
async function swarm (store, drive, options) {
  const Networker = load(NAMES.networker)
  const networker = new Networker(store, { bootstrap: JSON.parse(process.env.BOOTSTRAP || '[]') })
  await networker.listen()
  networker.configure(drive.discoveryKey, { announce: false, lookup: false, flush: false, ...options })
  return networker
}

function join (socket, stream) {
  socket.setNoDelay(true)
  stream.on('error', () => {})
  socket.on('error', () => {})
  socket.pipe(stream).pipe(socket)
}

// A freshly mounted feed answers "no such entry" until it has heard of a peer's length: wait for that.
async function newest (feed) {
  while (!feed.peers.length) await sleep(10)
  await call(feed, 'update', { ifAvailable: false, minLength: 1 }).catch(() => {})
  await call(feed, 'get', 0)
}

async function catchUp (store, drive, directory, depth) {
  if (depth > DEPTH_LIMIT) throw new Error('too deep: ' + directory)
  for (const name of new Set(await call(drive, 'readdir', directory))) {
    const full = path.posix.join(directory, name)
    const stat = await call(drive, 'lstat', full)
    if ((stat.mode & 0o170000) !== 0o040000) continue
    if (stat.mount && stat.mount.key) await newest(store.get({ key: stat.mount.key }))
    await catchUp(store, drive, full, depth + 1)
  }
}

async function about (drive, name) {
  const stat = await call(drive, 'lstat', name)
  const metadata = Object.entries(stat.metadata || {}).map(([key, value]) => [key, value && value.toString()])
  return { size: stat.size, offset: stat.offset, blocks: stat.blocks, metadata: Object.fromEntries(metadata) }
}

async function dump (directory, key) {
  const store = await openStore(directory)
  const drive = await openDrive(store, key)
  say({ manifest: await manifest(drive), version: drive.version, writable: drive.writable })
  process.exit(0)
}

// --------------------------------------------------------------------------------------------------------- serving
// Commands, one JSON object per line: {"do": "manifest"}, {"do": "stats"}, {"do": "tags"}, {"do": "about", "path"},
// {"do": "quit"} and every step of `make`.
async function serve (directory, key, port) {
  const store = await openStore(directory)
  const uploads = new Map()
  const sockets = new Set()
  const bytes = { sent: 0, received: 0 }
  const count = feed => feed.on('upload', (index, data) => {
    const name = feed.key.toString('hex')
    if (!uploads.has(name)) uploads.set(name, { blocks: 0, bytes: 0, indexes: [] })
    const sum = uploads.get(name)
    sum.blocks += 1
    sum.bytes += data.length
    sum.indexes.push(index)
  })
  store.on('feed', count)
  const drive = await openDrive(store, key)
  for (const feed of [drive.metadata, await call(drive, 'getContent')]) {
    if (!feed.listenerCount('upload')) count(feed)
  }
  if (port === 'swarm') {
    await swarm(store, drive, { announce: true, lookup: true })
    port = 0
  }
  const server = net.createServer(socket => {
    sockets.add(socket)
    socket.on('close', () => {
      sockets.delete(socket)
      bytes.sent += socket.bytesWritten
      bytes.received += socket.bytesRead
    })
    join(socket, store.replicate(false, { live: true, encrypt: true }))
  })
  await new Promise(resolve => server.listen(Number(port || 0), '127.0.0.1', resolve))
  const contentFeed = await call(drive, 'getContent')
  say({
    key: drive.key.toString('hex'),
    content: contentFeed.key.toString('hex'),
    port: server.address().port,
    version: drive.version
  })
  const stats = () => ({
    uploads: Object.fromEntries(uploads),
    connections: sockets.size,
    sent: [...sockets].reduce((sum, socket) => sum + socket.bytesWritten, bytes.sent),
    received: [...sockets].reduce((sum, socket) => sum + socket.bytesRead, bytes.received)
  })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    if (command.do === 'quit') break
    else if (command.do === 'stats') say(stats())
    else if (command.do === 'about') say(await about(drive, command.path))
    else if (command.do === 'tags') say({ tags: Object.fromEntries(await call(drive, 'getAllTags')) })
    else if (command.do === 'manifest') say({ manifest: await manifest(drive, command), version: drive.version })
    else {
      await apply(drive, command, new Map(), new Map())
      say({ version: drive.version })
    }
  }
  process.exit(0)
}

const verbs = { make, serve, read, dump }
verbs[verb](...args).catch(die)
