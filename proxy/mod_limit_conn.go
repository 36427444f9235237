package proxy

import (
	"math"
	"slices"
	"sync"

	"proxyctl/parser"
)

// ngx_http_limit_conn_module: how many requests a key may have at a time.

func limitConnModule() Module {
	const in = inHTTPLevels | inStreamLevels
	return Module{
		Name: "ngx_http_limit_conn_module", Stream: "ngx_stream_limit_conn_module",
		Commands: []Command{
			{
				Name: "limit_conn_zone", In: InHTTP | InStream, Args: "2", Repeat: true, Syntax: "key zone=name:size",
				Doc: "Declares a zone of connection counters.", Set: setLimitConnZone,
			},
			{
				Name: "limit_conn", In: in, Args: "2", Repeat: true, Syntax: "zone number",
				Doc: "Limits the number of connections.", Set: setLimitConn,
			},
			Enum(Command{Name: "limit_conn_log_level", In: in, Default: "error", Doc: "Sets the level at which refusals are logged."}, limitLogLevels(), func(c *Conf) *int { return &c.LimitConn.level }),
			NumberIn(Command{Name: "limit_conn_status", In: inHTTPLevels, Default: "503", Doc: "Sets the status of refused requests."}, 400, 599, func(c *Conf) *int { return &c.LimitConn.status }),
			Flag(Command{Name: "limit_conn_dry_run", In: in, Default: "off", Doc: "Counts and logs, but refuses nothing."}, func(c *Conf) *bool { return &c.LimitConn.dryRun }),
		},
		Variables: limitConnVariables(), StreamVariables: limitConnVariables(),
		Init:  func(c *Conf) { c.LimitConn.level, c.LimitConn.status = 3, 503 },
		Phase: PreAccess,
		Handler: func(c *Conf) Handler {
			if len(c.LimitConn.limits.Items) == 0 {
				return nil
			}
			return c.LimitConn.handle
		},
	}
}

func limitConnVariables() []Variable {
	return []Variable{readOnly("limit_conn_status", func(dst []byte, x *Exchange) ([]byte, bool) {
		return x.root().limited.connection.append(dst)
	})}
}

// limitConnConf is what the module knows at a level.
type limitConnConf struct {
	limits List[connectionLimit]
	level  int
	status int
	dryRun bool
}

// connectionLimit is one limit_conn.
type connectionLimit struct {
	zone *connectionZone
	most int
}

// connectionZone is one limit_conn_zone. Its counters survive reloads.
type connectionZone struct {
	name   string
	key    *Value
	text   string // of key
	size   int64
	counts *connectionCounts
}

// connectionCounts are the counters of a zone.
type connectionCounts struct {
	mu   sync.Mutex
	all  map[string]*connectionCount
	used int64
}

type connectionCount struct {
	key     string
	n       int
	clients []*client // of the first of them
}

// maxLookedAfter bounds how many clients of a counter are looked after.
const maxLookedAfter = 16

// gone counts the clients that have left, which their requests have not noticed
// yet.
func (c *connectionCount) gone() int {
	n := 0
	for _, cl := range c.clients {
		if cl.sock != nil && cl.sock.Gone() {
			n++
		}
	}
	return n
}

// drop takes one request of a client out.
func (c *connectionCount) drop(cl *client) {
	c.n--
	if i := slices.Index(c.clients, cl); i >= 0 {
		c.clients = slices.Delete(c.clients, i, i+1)
	}
}

func setLimitConnZone(l *Level, d *parser.Directive) error {
	key, err := l.value(d.Args[0].Value)
	if err != nil {
		return err
	}
	if a := d.Args[1]; len(a.Value) < len("zone=") || a.Value[:len("zone=")] != "zone=" {
		return sayAt(a, "", "zone=name:size", "invalid parameter \"%s\"", a.Value)
	}
	name, size, err := zoneArgument(d)
	if err != nil {
		return err
	}
	if err := l.sharedZone(d.Args[0], name, size, l.c.names.use("limit_conn")); err != nil {
		return err
	}
	z := l.connectionZone(name)
	if z.key != nil {
		return sayAt(d.Args[0], "Y011", "", "%s \"%s\" is already bound to key \"%s\"", d.Name.Value, name, z.text)
	}
	z.key, z.text, z.size = key, d.Args[0].Value, size
	return nil
}

// connectionZone finds or makes a zone.
func (l *Level) connectionZone(name string) *connectionZone {
	zones := l.c.table.connectionZones
	if zones[name] == nil {
		zones[name] = &connectionZone{name: name, counts: &connectionCounts{all: map[string]*connectionCount{}}}
	}
	return zones[name]
}

func setLimitConn(l *Level, d *parser.Directive) error {
	name := d.Args[0].Value
	if err := l.sharedZone(d.Args[0], name, 0, l.c.names.use("limit_conn")); err != nil {
		return err
	}
	limit := connectionLimit{zone: l.connectionZone(name)}
	limits := &l.Conf.LimitConn.limits
	if limits.level == l && slices.ContainsFunc(limits.Items, func(o connectionLimit) bool { return o.zone == limit.zone }) {
		return errDuplicate
	}
	n, ok := parseNumber(d.Args[1].Value)
	if !ok || n == 0 {
		return sayAt(d.Args[1], "Y009", "", "invalid number of connections \"%s\"", d.Args[1].Value)
	}
	if n > math.MaxUint16 {
		return sayAt(d.Args[1], "Y009", "", "connection limit must be less 65536")
	}
	limit.most = n
	limits.Add(l, limit)
	return nil
}

// maxConnectionKey is how long a key may be; connectionNode is the memory of a
// counter in nginx, without its key.
const (
	maxConnectionKey = 255
	connectionNode   = 36
)

// handle runs in the preaccess phase (ngx_http_limit_conn_handler).
func (c *limitConnConf) handle(x *Exchange) Code {
	root := x.root()
	if root.limited.connection != 0 {
		return Declined
	}
	for i := range c.limits.Items {
		l := &c.limits.Items[i]
		key := l.zone.key.Append(x.borrow(), x)
		full, busy := false, false
		switch {
		case len(key) > maxConnectionKey:
			x.Logf(logError, "the value of the \"%s\" key is more than 255 bytes: \"%s\"", l.zone.text, key)
		case len(key) > 0:
			root.limited.connection = limitPassed
			var count *connectionCount
			if count, busy = l.zone.take(key, l.most, x.client); count != nil {
				root.held = append(root.held, heldCount{l.zone.counts, count})
			}
			full = count == nil
		}
		x.giveBack(key)
		if full {
			return c.refuse(x, l, busy)
		}
	}
	return Declined
}

// refuse ends the request, or only says so in a dry run.
func (c *limitConnConf) refuse(x *Exchange, l *connectionLimit, busy bool) Code {
	if busy {
		note := ""
		if c.dryRun {
			note = ", dry run,"
		}
		x.Logf(logInfo-logLevel(c.level), "limiting connections%s by zone \"%s\"", note, l.zone.name)
	}
	root := x.root()
	root.releaseCounts()
	if root.limited.connection = limitRejected; c.dryRun {
		root.limited.connection = limitRejectedDryRun
		return Declined
	}
	return Code(c.status)
}

// take counts a connection; nil when it would be one too many (busy), or there
// is no memory for its counter.
func (z *connectionZone) take(key []byte, most int, c *client) (count *connectionCount, busy bool) {
	s := z.counts
	s.mu.Lock()
	defer s.mu.Unlock()
	count = s.all[string(key)]
	if count == nil {
		size := nodeSize(connectionNode, len(key))
		if s.used+size > z.size {
			return nil, false
		}
		s.used += size
		count = &connectionCount{key: string(key)}
		s.all[count.key] = count
	}
	if count.n >= most && count.n-count.gone() >= most {
		return nil, true
	}
	count.n++
	if len(count.clients) < maxLookedAfter {
		count.clients = append(count.clients, c)
	}
	return count, false
}

// heldCount is a counter that the main request is counted in.
type heldCount struct {
	counts *connectionCounts
	count  *connectionCount
}

// releaseCounts takes the request out of all counters, at its end.
func (x *Exchange) releaseCounts() {
	for _, h := range x.held {
		h.counts.mu.Lock()
		if h.count.drop(x.client); h.count.n == 0 {
			delete(h.counts.all, h.count.key)
			h.counts.used -= nodeSize(connectionNode, len(h.count.key))
		}
		h.counts.mu.Unlock()
	}
	x.held = x.held[:0]
}

// inheritLimits takes the counters of zones over from the table before. The key
// of a zone that stays must stay, too.
func (t *Table) inheritLimits(old *Table) error {
	for name, z := range t.requestZones {
		o := old.requestZones[name]
		switch {
		case o == nil:
		case o.text != z.text:
			return changedKey("limit_req", name, z.text, o.text)
		case o.size == z.size:
			z.buckets = o.buckets
		}
	}
	for name, z := range t.connectionZones {
		o := old.connectionZones[name]
		switch {
		case o == nil:
		case o.text != z.text:
			return changedKey("limit_conn_zone", name, z.text, o.text)
		case o.size == z.size:
			z.counts = o.counts
		}
	}
	return nil
}

func changedKey(what, name, now, before string) error {
	return say("%s \"%s\" uses the \"%s\" key while previously it used the \"%s\" key", what, name, now, before)
}
