package admin

import (
	"context"
	"net"
	"sync"

	"mamlog/admin/v1/adminv1connect"
)

// Local serves the API inside the process, over pipes, and returns a client of
// it. It is the way to a stopped store; close ends it.
func (s *Service) Local() (c adminv1connect.AdminServiceClient, close func()) {
	l := &localListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := s.Server()
	go server.Serve(l) // returns when it is closed
	return client(l.dial), func() { server.Close() }
}

// localConn is a pipe, told from a socket by its type.
type localConn struct{ net.Conn }

type localListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *localListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- &localConn{there}:
		return here, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *localListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *localListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *localListener) Addr() net.Addr { return localAddr{} }

type localAddr struct{}

func (localAddr) Network() string { return "pipe" }
func (localAddr) String() string  { return "this process" }
