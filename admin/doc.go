// Package admin answers what operators ask: accounts, archives, preferences
// and their history, why something was archived, the audit history and its proofs,
// rebuilding and checking the stores.
//
// The service is defined in v1/admin.proto. A running server serves it on a Unix
// socket; on a stopped store the command line serves it to itself, so that there
// is one way to do each thing. Who calls is taken from the socket's peer and
// written into the events that a call causes; an operator's look into somebody's
// archive, preferences or history leaves an event of its own before anything is
// shown.
//
// The package opens no stores and decides nothing about archiving.
package admin
