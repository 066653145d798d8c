// Package bench measures mamlog: against the bare engine on the same disk, against
// Prosody and ejabberd over XMPP, and against itself. The command mamlog-bench
// binds it to flags.
//
// What matters is told as a ratio of two things that were measured in turns in
// one run, because absolute figures of a shared machine are noise. Every figure is
// checked: messages count when their recipient has them with the right body and with
// the archive's id, and are counted in both archives afterwards; pages count when every
// body is the one that was archived.
//
// # The files
//
// text.go and contents.go make messages as real chats have them, and say where
// that is known from. stream.go, load.go and pager.go are the clients. system.go runs a
// contender and fill.go its archives; the servers' configurations are in
// integrations/peers. floor.go, ingest.go, pages.go, life.go and attach.go are the
// parts of a report; ratio.go, report.go and plot.go write it; check.go reads it back.
//
// # Profiles
//
// Every command of mamlog-bench writes a CPU profile with --cpuprofile. That of
// the part "floor" shows appends and pages without a network, and that of "host" the
// embedded host under load, with the clients in the same process:
//
//	mamlog-bench host --cpuprofile cpu.out
//	go tool pprof -http 127.0.0.1:8080 cpu.out
//
// In the browser choose View, Flame Graph. Two profiles are compared with
// go tool pprof -http 127.0.0.1:8080 -diff_base before.out after.out.
package bench
