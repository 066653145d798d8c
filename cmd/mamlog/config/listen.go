package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

const listenForms = "HOST:PORT, as in 127.0.0.1:5222 or [::1]:5222"

// CheckListen says what is wrong with an address to listen on.
func CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address; allowed is %s", address, listenForms)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port; allowed is %s", port, listenForms)
	}
	if strings.ContainsAny(host, " /@") {
		return fmt.Errorf("%q is not a host; allowed is %s", host, listenForms)
	}
	return nil
}

// Loopback tells whether only this machine can reach the address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// listen reads an address to listen on.
func (d *decoder) listen(to *string) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			d.fail(n, path, "this is %s; allowed is %s", describe(n), listenForms)
			return
		}
		if err := CheckListen(n.Value); err != nil {
			d.fail(n, path, "%v", err)
			return
		}
		*to = n.Value
		if d.listens == nil {
			d.listens = make(map[string]*yaml.Node)
		}
		d.listens[path] = n
	}
}

// checkListeners checks what an address and the options beside it allow
// together.
func (d *decoder) checkListeners() {
	c := d.config
	// Metrics without a host are for this machine: who wants to show them to
	// others says so.
	if host, port, err := net.SplitHostPort(c.MetricsListen); err == nil && host == "" {
		c.MetricsListen = net.JoinHostPort("127.0.0.1", port)
	}
	if c.C2S.AllowPlaintext {
		for path, n := range d.listens {
			if strings.HasPrefix(path, "c2s.") && !Loopback(n.Value) {
				d.fail(n, path, "%s can be reached from other machines, and allow_plaintext would let passwords cross the network in the clear; allowed is a loopback address such as 127.0.0.1, or allow_plaintext: false", n.Value)
			}
		}
	}
	d.checkSame()
	if (c.C2S.Certificate == "") != (c.C2S.Key == "") && !d.failed("c2s.certificate") && !d.failed("c2s.key") {
		set, missing := "certificate", "key"
		if c.C2S.Certificate == "" {
			set, missing = missing, set
		}
		d.fail(d.c2s, "c2s", "%s is set without %s; allowed is both, or neither for a self-signed certificate", set, missing)
	}
}

// SameAddress tells whether two addresses can't both be listened on: port 0 is
// another one each time.
func SameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return false
	}
	numberA, _ := strconv.Atoi(portA) // CheckListen has read them
	numberB, _ := strconv.Atoi(portB)
	if numberA != numberB || numberA == 0 {
		return false
	}
	ipA, errA := netip.ParseAddr(hostA)
	ipB, errB := netip.ParseAddr(hostB)
	if errA == nil && errB == nil {
		return ipA == ipB
	}
	return strings.EqualFold(hostA, hostB)
}

// checkSame refuses one address for two listeners.
func (d *decoder) checkSame() {
	c := d.config
	all := []struct{ path, address string }{
		{"c2s.listen", c.C2S.Listen}, {"c2s.websocket_listen", c.C2S.WebSocketListen}, {"metrics.listen", c.MetricsListen},
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if !SameAddress(a.address, b.address) {
				continue
			}
			at, other := a.path, b.path
			if d.listens[at] == nil { // a default; the other one was chosen
				at, other = other, at
			}
			d.fail(d.listens[at], at, "%s is the address of %s too; allowed is another port", a.address, other)
		}
	}
}

// pem reads the path of a file of c2s.
func (d *decoder) pem(to *string) func(string, *yaml.Node) {
	text := d.text(to, "the path of a PEM file")
	return func(path string, n *yaml.Node) {
		text(path, n)
		if *to == "" {
			return
		}
		if d.pems == nil {
			d.pems = make(map[string]*yaml.Node)
		}
		d.pems[path] = n
	}
}

// checkPEMs refuses files that aren't there. Whether they can be read is left to
// the server, which may be another user.
func (d *decoder) checkPEMs() {
	for path, n := range d.pems {
		info, err := os.Stat(n.Value)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.fail(n, path, "there is no file %s; a relative path counts from the working directory", n.Value)
		case err == nil && info.IsDir():
			d.fail(n, path, "%s is a directory; allowed is the path of a PEM file", n.Value)
		}
	}
}
