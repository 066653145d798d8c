package admin

import (
	"context"
	"net"
	"os/user"
	"strconv"
)

type callerKey struct{}

// Caller names who calls, as events do: "operator:" with the name of the
// operating system's user.
func Caller(ctx context.Context) string {
	if c, ok := ctx.Value(callerKey{}).(string); ok {
		return c
	}
	return "operator:unknown"
}

// withCaller finds out who is at the other end of a connection.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	caller := ""
	switch c := c.(type) {
	case *net.UnixConn:
		if uid, err := peerUID(c); err == nil {
			caller = userName(uid)
		}
	case *localConn:
		if u, err := user.Current(); err == nil {
			caller = u.Username
		}
	}
	if caller == "" {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, "operator:"+caller)
}

// userName is the name of a user, or the number where nobody has it.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}
