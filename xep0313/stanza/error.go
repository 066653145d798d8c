package stanza

import "fmt"

// Error is a stanza error (RFC 6120 section 8.3): what the other side is told.
type Error struct {
	Type      string // "cancel", "modify", "auth", "wait"
	Condition string // "item-not-found", ...
	Text      string // for people; may be empty
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Type + "/" + e.Condition
	}
	return e.Type + "/" + e.Condition + ": " + e.Text
}

// The usual pairs of condition and type (RFC 6120 section 8.3.3).
func BadRequest(format string, args ...any) *Error {
	return newError("modify", "bad-request", format, args)
}
func Forbidden(format string, args ...any) *Error { return newError("auth", "forbidden", format, args) }
func ItemNotFound(format string, args ...any) *Error {
	return newError("cancel", "item-not-found", format, args)
}
func JIDMalformed(format string, args ...any) *Error {
	return newError("modify", "jid-malformed", format, args)
}
func NotAllowed(format string, args ...any) *Error {
	return newError("cancel", "not-allowed", format, args)
}
func FeatureNotImplemented(format string, args ...any) *Error {
	return newError("cancel", "feature-not-implemented", format, args)
}
func ServiceUnavailable(format string, args ...any) *Error {
	return newError("cancel", "service-unavailable", format, args)
}
func PolicyViolation(format string, args ...any) *Error {
	return newError("modify", "policy-violation", format, args)
}
func ResourceConstraint(format string, args ...any) *Error {
	return newError("wait", "resource-constraint", format, args)
}
func InternalServerError() *Error {
	return newError("wait", "internal-server-error", "the server failed; try again later", nil)
}

func newError(typ, condition, format string, args []any) *Error {
	return &Error{Type: typ, Condition: condition, Text: fmt.Sprintf(format, args...)}
}

// Element is the <error/> child.
func (e *Error) Element() *Element {
	el := New(NSClient, "error", "type", e.Type).Add(New(NSErrors, e.Condition))
	if e.Text != "" {
		t := New(NSErrors, "text").AddText(e.Text)
		t.Attrs = append(t.Attrs, Attr{Space: nsXML, Local: "lang", Value: "en"})
		el.Add(t)
	}
	return el
}

// Reply is a stanza of the same kind back to where e came from, with its id,
// without its content.
func (e *Element) Reply(typ string) *Element {
	r := New(e.Space, e.Local)
	r.SetAttr("type", typ)
	r.SetAttr("id", e.Attr("id"))
	r.SetAttr("from", e.Attr("to"))
	r.SetAttr("to", e.Attr("from"))
	return r
}

// ReplyError is the error reply to e.
func (e *Element) ReplyError(err *Error) *Element {
	return e.Reply("error").Add(err.Element())
}
