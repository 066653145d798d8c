// Package browser tests that people who use a web client have their history:
// Converse.js in headless Chromium, over WebSocket, against servers whose archive
// is mamlog. A test does what a person does, with mouse and keyboard, and judges
// what is on the screen. It is all tests:
//
//   - conversation_test.go: what there is to be read.
//   - converse_test.go: how it is read.
//   - person_test.go: who sits at the browser.
//   - traffic_test.go: what the client asked of the archive meanwhile.
//   - site_test.go: the page with Converse.js.
//
// They need the build tag servers; make test-servers sets it.
//
// Chromium is Debian's. npm brings Converse.js, as package-lock.json pins it; for
// another version, change the version in both files and the integrity that
// npm view converse.js@VERSION dist.integrity prints. Nothing but loopback is
// spoken to. With -update the test takes docs/converse.png anew, and with
// -artifacts it leaves its pictures where it says.
package browser
