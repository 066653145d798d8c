package component

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged is for how many milliseconds sent data may be, before the
// connection counts as dead.
const unacknowledged = 30_000

// deadPeer bounds how long the system tries to send to a peer that is gone
// (RFC 5482); its own default is a quarter of an hour.
func deadPeer(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unacknowledged)
	}); controlErr != nil {
		return controlErr
	}
	return err
}
