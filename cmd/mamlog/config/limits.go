package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Limits bound what clients, and those who say they are, may use up.
type Limits struct {
	StanzaSize       int64 // bytes of XML
	StanzaDepth      int
	StanzaAttributes int // of one element

	QueryIDs       int // values of the field "ids"
	FormFields     int
	PreferenceJIDs int // in both lists together
	UserQueries    int // of one user, unanswered

	ClientQueue int64 // bytes that wait to be read by one client
	AppendQueue int64 // bytes that wait for the disk of one store

	Connections      int
	LoggingIn        int           // connections that are not logged in
	LoginTimeout     time.Duration // from accept to the bound resource
	LoginAttempts    int           // that failed, on one connection
	FailedLoginsRate int           // from one address, in a minute
}

func defaultLimits() Limits {
	return Limits{
		StanzaSize: 256 << 10, StanzaDepth: 64, StanzaAttributes: 64,
		QueryIDs: 1000, FormFields: 32, PreferenceJIDs: 2000, UserQueries: 128,
		ClientQueue: 16 << 20, AppendQueue: 64 << 20,
		Connections: 10000, LoggingIn: 1000, LoginTimeout: 30 * time.Second, LoginAttempts: 3, FailedLoginsRate: 60,
	}
}

// limit is one option of limits, to be read and to be written.
type limit struct {
	name     string
	size     *int64 // one of the three
	number   *int
	duration *time.Duration
	min, max int64 // of a size in bytes; of a duration in seconds
}

// Depth and attributes are at most what stored messages are read with, and a
// stanza's size is at least what RFC 6120 section 13.12 wants.
func (l *Limits) all() []limit {
	const million = 1000000
	return []limit{
		{name: "stanza_size", size: &l.StanzaSize, min: 10000, max: 16 << 20},
		{name: "stanza_depth", number: &l.StanzaDepth, min: 10, max: 512},
		{name: "stanza_attributes", number: &l.StanzaAttributes, min: 16, max: 512},
		{name: "query_ids", number: &l.QueryIDs, min: 1, max: million},
		{name: "form_fields", number: &l.FormFields, min: 8, max: million}, // those that a query can have
		{name: "preference_jids", number: &l.PreferenceJIDs, min: 1, max: million},
		{name: "user_queries", number: &l.UserQueries, min: 1, max: million},
		{name: "client_queue", size: &l.ClientQueue, min: 1 << 20, max: 1 << 30},
		{name: "append_queue", size: &l.AppendQueue, min: 64 << 10, max: 1 << 30},
		{name: "connections", number: &l.Connections, min: 1, max: million},
		{name: "connections_logging_in", number: &l.LoggingIn, min: 1, max: million},
		{name: "login_timeout", duration: &l.LoginTimeout, min: 1, max: 3600},
		{name: "login_attempts", number: &l.LoginAttempts, min: 1, max: 100},
		{name: "failed_logins_per_minute", number: &l.FailedLoginsRate, min: 1, max: million},
	}
}

// limits reads the mapping.
func (d *decoder) limits(path string, n *yaml.Node) {
	var options []option
	for _, l := range d.config.Limits.all() {
		options = append(options, option{l.name, func(path string, n *yaml.Node) { d.limit(l, path, n) }})
	}
	d.mapping(path, n, options)
	l := d.config.Limits
	// Written anew a stanza may be several times as large as it came, and somebody
	// could send a client away with one.
	if least := 8 * l.StanzaSize; l.ClientQueue < least && !d.failed(path) {
		d.fail(n, join(path, "client_queue"), "%s is too little for stanzas of %s; allowed is eight times stanza_size, %s, or more",
			formatSize(l.ClientQueue), formatSize(l.StanzaSize), formatSize(least))
	}
}

func (d *decoder) limit(l limit, path string, n *yaml.Node) {
	switch {
	case l.size != nil:
		d.sizeBetween(l.size, l.min, l.max)(path, n)
	case l.duration != nil:
		v, err := ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v < time.Duration(l.min)*time.Second || v > time.Duration(l.max)*time.Second {
			d.fail(n, path, "this is %s; allowed is a number of seconds from %d to %d", describe(n), l.min, l.max)
			return
		}
		*l.duration = v
	default:
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || int64(v) < l.min || int64(v) > l.max {
			d.fail(n, path, "this is %s; allowed is an integer from %d to %d", describe(n), l.min, l.max)
			return
		}
		*l.number = v
	}
}

// format writes the options and their values.
func (l Limits) format() string {
	var b strings.Builder
	for _, o := range l.all() {
		value := ""
		switch {
		case o.size != nil:
			value = formatSize(*o.size)
		case o.duration != nil:
			value = FormatDuration(*o.duration)
		default:
			value = fmt.Sprint(*o.number)
		}
		b.WriteString("  " + o.name + ": " + value + "\n")
	}
	return b.String()
}
