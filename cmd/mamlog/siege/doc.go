// Package siege tests the finished mamlog binary against those who mean it harm,
// and against more work than it can do: who may ask what, hostile XML, bytes
// changed by chance, secrets and files, overload, and hours of load.
//
// Like package conformance, whose servers and clients it uses, it imports nothing
// of mamlog, and speaks to the process over its sockets only. What a test claims of
// memory, goroutines and log positions, it reads from the server's metrics.
// MAMLOG_SEED replays a run of a test that draws lots.
package siege
