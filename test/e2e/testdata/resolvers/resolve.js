// lookup asks the C library, resolve4 asks by itself and knows no search list.
const dns = require('dns').promises
const said = e => e.code === 'ENOTFOUND' ? 'none' : e.code
const ask = process.argv[2] === 'lookup' ? n => dns.lookup(n, { all: true }).then(l => l.map(a => a.address)) : n => dns.resolve4(n)
;(async () => {
  for (const name of process.argv.slice(3)) console.log(name, await ask(name).then(l => l.join(' '), said))
})()
