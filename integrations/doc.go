// Package integrations tests mamlog as the archive of real servers: Debian's
// Prosody and ejabberd, each with its module, mamlog itself as a process of its
// own, and clients on sockets. What is here is tests only.
//
//   - conformance_test.go plays the transcripts and cases of cmd/mamlog/conformance
//     on both servers; testdata/*.differences lists those that don't hold there,
//     each with its reason.
//   - delivery_test.go: what must hold on a message's way through a server.
//   - rooms_test.go: one order of a room's messages for all.
//   - faults_test.go: kills, hangs and cuts; nothing that was delivered is lost.
//   - failure_test.go: what a message becomes that can't be archived.
//   - intruders_test.go: who must get nothing.
//   - migration_test.go: from mod_mam to mamlog and back.
package integrations
