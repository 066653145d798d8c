// Package bench measures mamlog. Every figure is a ratio of two things that were
// measured in turns in one run, because absolute figures of a shared machine are
// noise. The command mamlog-bench binds it to flags.
package bench
