package integrations

import (
	"io"
	"net"
	"sync"

	"mamlog/integrations/peers"
)

// proxy is a link's way to its server, which can be cut.
type proxy struct {
	addr, to string

	mu       sync.Mutex
	listener net.Listener // nil while it is cut
	conns    map[net.Conn]bool
}

func newProxy(to string) (*proxy, error) {
	addr, err := peers.FreeAddr()
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: addr, to: to, conns: map[net.Conn]bool{}}
	return p, p.mend()
}

// mend lets connections through again.
func (p *proxy) mend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = l
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it was cut
			}
			go p.carry(l, conn)
		}
	}()
	return nil
}

// cut ends all connections and refuses new ones. What was on its way is lost.
func (p *proxy) cut() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		// A reset, so that nothing more arrives.
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
	clear(p.conns)
	return nil
}

func (p *proxy) carry(l net.Listener, a net.Conn) {
	defer a.Close()
	b, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer b.Close()
	p.mu.Lock()
	if p.listener != l {
		p.mu.Unlock()
		return
	}
	p.conns[a], p.conns[b] = true, true
	p.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done
	p.mu.Lock()
	delete(p.conns, a)
	delete(p.conns, b)
	p.mu.Unlock()
}
