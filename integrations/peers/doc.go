// Package peers runs the XMPP servers that mamlog is attached to and compared
// with: Debian's Prosody and ejabberd, PostgreSQL for the latter, and mamlog
// itself. Each is a real process, listens on free loopback ports, and has all
// its files in a directory of its own. It is started by tests and benchmarks,
// as root or not, and ends with them.
//
// The configurations are the templates beside this file. They are meant to be
// fair: messages never expire, nothing limits rates, passwords are cheap to
// check, and a database is set up as its documentation recommends.
package peers
