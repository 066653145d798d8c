package main

import "connectrpc.com/connect"

// request wraps a message of the admin API.
func request[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

// receive calls do with each message of a stream, until one of them fails.
func receive[T any](s *connect.ServerStreamForClient[T], do func(*T) error) error {
	defer s.Close()
	for s.Receive() {
		if err := do(s.Msg()); err != nil {
			return err
		}
	}
	return s.Err()
}
