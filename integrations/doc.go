// Package integrations tests mamlog as the archive of real servers: Debian's
// Prosody and ejabberd, each with its module, mamlog itself as a process of its
// own, and clients on sockets. What is here is tests only.
//
//   - conformance_test.go plays the suite of cmd/mamlog/conformance on both servers;
//     testdata/*.differences lists what of it doesn't hold there, each with its
//     reason, and testdata/*/ has transcripts of what holds instead.
//   - delivery_test.go, resumption_test.go: what must hold on a message's way
//     through a server; rooms_test.go: one order of a room's messages for all.
//   - push_test.go: phones that are away hear of what is archived.
//   - tls_test.go: ejabberd's link over TLS.
//   - faults_test.go: kills, hangs and cuts; nothing that was delivered is lost.
//   - unreachable_test.go: what a message becomes that can't be archived.
//   - intruders_test.go: who must get nothing.
//   - install_test.go: the way into ejabberd by its own installer.
//   - migration_test.go: from mod_mam to mamlog and back.
//
// newer.sh runs all of it with newer servers, out of other suites of Debian.
//
// site_test.go starts a server with its mamlog, shared_test.go those that several
// tests use.
package integrations
