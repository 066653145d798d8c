package peers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// ports counts through those already given out by this process, from a random
// beginning, so that processes running at once seldom meet.
var ports atomic.Uint32

func init() { ports.Store(rand.Uint32N(20000)) }

// FreeAddr finds a free loopback address. Its port is below the range from which
// the kernel serves outgoing connections: one of those could take the port while
// a killed server is down.
func FreeAddr() (string, error) {
	var err error
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+ports.Add(1)%20000)
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
