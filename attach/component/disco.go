package component

import "mamlog/xep0313/stanza"

// ping answers XEP-0199.
func (c *call) ping() *stanza.Error {
	c.reply(nil)
	return nil
}

// info answers XEP-0030 section 3: what the component itself is. What is announced
// for accounts and rooms, the server announces for them.
func (c *call) info() *stanza.Error {
	if node := c.payload.Attr("node"); node != "" {
		return c.nestedInfo(node)
	}
	q := stanza.New(nsInfo, "query").Add(
		stanza.New(nsInfo, "identity", "category", "component", "type", "archive", "name", "mamlog"),
		stanza.New(nsInfo, "feature", "var", nsInfo),
		stanza.New(nsInfo, "feature", "var", nsItems),
		stanza.New(nsInfo, "feature", "var", nsPing))
	c.reply(q.Append(nil, nsAccept))
	return nil
}

// items answers XEP-0030 section 4: there are none.
func (c *call) items() *stanza.Error {
	if c.payload.Attr("node") != "" {
		return stanza.ItemNotFound("")
	}
	c.reply(stanza.New(nsItems, "query").Append(nil, nsAccept))
	return nil
}
