package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// JoinOptions say how a client enters a room.
type JoinOptions struct {
	Password string
	History  bool // else none is asked for
}

// Join enters a room (XEP-0045, section 7.2) and reports whether that made it,
// in which case nobody else can enter before Configure. The room's subject is
// taken; history, if asked for, waits for Next.
func (c *Client) Join(room, nick string, o JoinOptions) (created bool, err error) {
	x := ""
	if o.Password != "" {
		x += "<password>" + escape(o.Password) + "</password>"
	}
	if !o.History {
		x += "<history maxstanzas='0'/>"
	}
	if err := c.Send("<presence" + c.from + " to='" + escape(room+"/"+nick) + "'><x xmlns='" + nsMUC + "'>" + x + "</x></presence>"); err != nil {
		return false, err
	}
	self, err := c.take(&c.presence, func(e *Element) bool {
		return bare(e.Attr("from")) == room && (e.Attr("type") == "error" || hasStatus(e, "110") && e.Attr("type") == "")
	})
	if err != nil {
		return false, fmt.Errorf("entering %s: %w", room, err)
	}
	if e := self.Child("error"); e != nil {
		return false, fmt.Errorf("entering %s: %s", room, oneLine(e))
	}
	_, err = c.take(&c.queue, func(e *Element) bool {
		return e.Name.Local == "message" && bare(e.Attr("from")) == room && e.Child("subject") != nil && e.Child("body") == nil
	})
	if err != nil {
		return false, fmt.Errorf("waiting for the subject of %s: %w", room, err)
	}
	return hasStatus(self, "201"), nil
}

// Leave leaves a room, in which the client is that occupant, and returns when
// the room has confirmed that.
func (c *Client) Leave(occupant string) error {
	if err := c.Send("<presence" + c.from + " type='unavailable' to='" + escape(occupant) + "'/>"); err != nil {
		return err
	}
	_, err := c.take(&c.presence, func(e *Element) bool {
		return e.Attr("from") == occupant && e.Attr("type") == "unavailable"
	})
	return err
}

// Configure sends a room's owner's configuration, fields as "name=value": none
// accepts what the server gives a new room.
func (c *Client) Configure(room string, fields ...string) error {
	form := "<field var='FORM_TYPE'><value>" + nsMUC + "#roomconfig</value></field>"
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		form += "<field var='" + escape(name) + "'><value>" + escape(value) + "</value></field>"
	}
	answer, err := c.CallTo(room, "set", "<query xmlns='"+nsMUC+"#owner'><x xmlns='"+nsForm+"' type='submit'>"+form+"</x></query>")
	if err != nil {
		return err
	}
	if answer.Attr("type") != "result" {
		return fmt.Errorf("configuring %s: %s", room, oneLine(answer))
	}
	return nil
}

// NewRoom makes a room and enters it.
func (c *Client) NewRoom(room, nick string, fields ...string) error {
	created, err := c.Join(room, nick, JoinOptions{})
	if err != nil {
		return err
	}
	if !created {
		return fmt.Errorf("%s existed", room)
	}
	return c.Configure(room, fields...)
}

// hasStatus looks for a status code of XEP-0045.
func hasStatus(e *Element, code string) bool {
	x := e.Child("{" + nsMUC + "#user}x")
	if x == nil {
		return false
	}
	for _, s := range x.Children {
		if s.Name.Local == "status" && s.Attr("code") == code {
			return true
		}
	}
	return false
}

// lookID is what the ids of Gone's iqs begin with.
const lookID = "look-"

// Gone waits until a room is not there any more. What is sent to one that is being
// destroyed may be lost, so it is asked for again and again.
func (c *Client) Gone(room string) error {
	deadline := time.Now().Add(patience)
	for {
		id := lookID + newID()
		if err := c.Send("<iq type='get' to='" + escape(room) + "' id='" + id + "'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"); err != nil {
			return err
		}
		answer, err := c.takeIn(50*time.Millisecond, &c.looks, func(*Element) bool { return true })
		switch {
		case err == nil && answer.Child("error", "item-not-found") != nil:
			return nil
		case err != nil && !errors.Is(err, errTimeout):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%s is still there", room)
		}
	}
}

// isRoomNotice tells whether a room itself says that its configuration or
// somebody's affiliation changed (XEP-0045, sections 10.2.1 and 9), which no
// case asks for.
func isRoomNotice(e *Element) bool {
	if e == nil || e.Name.Local != "message" || e.Attr("from") != bare(e.Attr("from")) {
		return false
	}
	x := e.Child("{" + nsMUC + "#user}x")
	return x != nil && (x.Child("status") != nil || x.Child("item") != nil)
}

// Affiliate gives someone an affiliation with a room.
func (c *Client) Affiliate(room, who, affiliation string) error {
	answer, err := c.CallTo(room, "set", "<query xmlns='"+nsMUC+"#admin'><item jid='"+escape(who)+"' affiliation='"+affiliation+"'/></query>")
	if err != nil {
		return err
	}
	if answer.Attr("type") != "result" {
		return fmt.Errorf("making %s %s of %s: %s", who, affiliation, room, oneLine(answer))
	}
	return nil
}

// room is the address of a transcript's room.
func (r *run) room(name string) string { return name + "-" + r.suffix + "@" + r.host.Rooms }

// inRoom is who's occupant JID, or "".
func (r *run) inRoom(who, room string) string {
	label, _, err := r.find(who)
	if err != nil {
		return ""
	}
	for _, occupant := range r.joined[label] {
		if bare(occupant) == room {
			return occupant
		}
	}
	return ""
}

// enter plays "room hall juliet field=value", "join romeo hall", "leave romeo
// hall", "affiliate juliet hall romeo=member" and "gone romeo hall".
func (r *run) enter(op string, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s wants a room and a user", op)
	}
	name, who, rest := args[1], args[0], args[2:]
	if op == "room" {
		name, who = who, name
	}
	label, c, err := r.find(who)
	if err != nil {
		return err
	}
	room := r.room(name)
	nick, _, _ := strings.Cut(who, "/")
	var o JoinOptions
	var fields []string
	for _, f := range rest {
		switch key, value, _ := strings.Cut(f, "="); {
		case key == "nick":
			nick = value
		case key == "password" && op == "join":
			o.Password = value
		case key == "history" && op == "join":
			o.History = true
		case op == "room":
			fields = append(fields, f)
		case op == "affiliate":
			return c.Affiliate(room, key+"-"+r.suffix+"@"+r.host.Domain, value)
		default:
			return fmt.Errorf("%s knows no %s", op, f)
		}
	}
	r.note(label, ">", op+" "+room+" as "+nick)
	switch op {
	case "room":
		err = c.NewRoom(room, nick, fields...)
	case "gone":
		return c.Gone(room)
	case "join":
		_, err = c.Join(room, nick, o)
	case "leave":
		occupant := r.inRoom(who, room)
		r.joined[label] = slices.DeleteFunc(r.joined[label], func(o string) bool { return o == occupant })
		return c.Leave(occupant)
	}
	if err == nil {
		r.joined[label] = append(r.joined[label], room+"/"+nick)
	}
	return err
}
