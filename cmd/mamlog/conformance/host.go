package conformance

import "context"

// Domain is the host of which transcripts speak, and the one that NewServer's
// servers serve; the domain of its rooms is "rooms." before it.
const Domain = "test.example"

// Password is every test account's password.
const Password = "wherefore art thou"

// Host is where transcripts and cases are played: one domain of a running
// server, of whatever make.
type Host struct {
	Domain string
	Rooms  string // the domain of its rooms; "" where it has none
	Addr   string // host:port of the client listener, which allows plain text

	// AddUser creates an account of the domain with Password.
	AddUser func(ctx context.Context, user string) error
}

// Dial logs in as user with a resource, in plain text, and becomes available.
func (h Host) Dial(ctx context.Context, user, resource string) (*Client, error) {
	c, err := Dial(ctx, h.login(user, resource))
	if err != nil {
		return nil, err
	}
	if err := c.Available(); err != nil {
		c.Drop()
		return nil, err
	}
	return c, nil
}

func (h Host) login(user, resource string) DialOptions {
	return DialOptions{Addr: h.Addr, Domain: h.Domain, User: user, Password: Password, Resource: resource}
}
