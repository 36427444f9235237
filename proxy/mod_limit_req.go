package proxy

import (
	"math"
	"slices"
	"strings"
	"time"

	"proxyctl/parser"
)

// ngx_http_limit_req_module: how many requests a key may make, by the method of
// the leaky bucket. The buckets of a zone are in mod_limit_req_zone.go.

func limitReqModule() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_limit_req_module",
		Commands: []Command{
			{
				Name: "limit_req_zone", In: InHTTP, Args: "3", Repeat: true, Syntax: "key zone=name:size rate=rate",
				Doc: "Declares a zone of request counters.", Set: setLimitReqZone,
			},
			{
				Name: "limit_req", In: in, Args: "1-3", Repeat: true, Syntax: "zone=name [burst=number] [nodelay | delay=number]",
				Doc: "Limits the rate of requests.", Set: setLimitReq,
			},
			Enum(Command{Name: "limit_req_log_level", In: in, Default: "error", Doc: "Sets the level at which refusals are logged."}, limitLogLevels(), func(c *Conf) *int { return &c.LimitReq.level }),
			NumberIn(Command{Name: "limit_req_status", In: in, Default: "503", Doc: "Sets the status of refused requests."}, 400, 599, func(c *Conf) *int { return &c.LimitReq.status }),
			Flag(Command{Name: "limit_req_dry_run", In: in, Default: "off", Doc: "Counts and logs, but refuses and delays nothing."}, func(c *Conf) *bool { return &c.LimitReq.dryRun }),
		},
		Variables: []Variable{readOnly("limit_req_status", func(dst []byte, x *Exchange) ([]byte, bool) {
			return x.root().limited.request.append(dst)
		})},
		Init:  func(c *Conf) { c.LimitReq.level, c.LimitReq.status = 3, 503 },
		Phase: PreAccess,
		Handler: func(c *Conf) Handler {
			if len(c.LimitReq.limits.Items) == 0 {
				return nil
			}
			return c.LimitReq.handle
		},
	}
}

// limitLogLevels are the words of the log level directives, from logInfo up.
func limitLogLevels() []string { return []string{"info", "notice", "warn", "error"} }

// limitReqConf is what the module knows at a level.
type limitReqConf struct {
	limits List[requestLimit]
	level  int // index of limitLogLevels
	status int
	dryRun bool
}

// requestLimit is one limit_req; numbers are in thousandths of a request.
type requestLimit struct {
	zone         *requestZone
	burst, delay int64
}

// limitScratch says how the main request met the limits; they count once for
// all of its subrequests.
type limitScratch struct {
	request, connection limitStatus
}

// limitStatus is how a limit was met; 0 for not at all.
type limitStatus uint8

const (
	limitPassed limitStatus = iota + 1
	limitDelayed
	limitRejected
	limitDelayedDryRun
	limitRejectedDryRun
)

func (s limitStatus) append(dst []byte) ([]byte, bool) {
	if s == 0 {
		return dst, false
	}
	return append(dst, [...]string{"PASSED", "DELAYED", "REJECTED", "DELAYED_DRY_RUN", "REJECTED_DRY_RUN"}[s-1]...), true
}

// zoneArgument reads "zone=name:size". It is for all modules that have zones of
// counters.
func zoneArgument(d *parser.Directive) (name string, size int64, err error) {
	for _, a := range d.Args[1:] {
		value, ok := strings.CutPrefix(a.Value, "zone=")
		if !ok {
			continue
		}
		var text string
		name, text, ok = strings.Cut(value, ":")
		if !ok {
			return "", 0, sayAt(a, "Y009", "zone=name:size", "invalid zone size \"%s\"", a.Value)
		}
		if size, ok = parseSize(text); !ok {
			return "", 0, sayAt(a, "Y009", "sizes are digits and end in k or m", "invalid zone size \"%s\"", a.Value)
		}
		if size < minZoneSize {
			return "", 0, sayAt(a, "Y009", "at least 32k", "zone \"%s\" is too small", a.Value)
		}
	}
	if name == "" {
		return "", 0, say("\"%s\" must have \"zone\" parameter", d.Name.Value)
	}
	return name, size, nil
}

func setLimitReqZone(l *Level, d *parser.Directive) error {
	key, err := l.value(d.Args[0].Value)
	if err != nil {
		return err
	}
	rate := int64(1000)
	for _, a := range d.Args[1:] {
		switch text, isRate := strings.CutPrefix(a.Value, "rate="); {
		case isRate:
			var ok bool
			if rate, ok = parseRate(text); !ok {
				return sayAt(a, "Y009", "10r/s or 30r/m", "invalid rate \"%s\"", a.Value)
			}
		case !strings.HasPrefix(a.Value, "zone="):
			return sayAt(a, "", "", "invalid parameter \"%s\"", a.Value)
		}
	}
	name, size, err := zoneArgument(d)
	if err != nil {
		return err
	}
	if err := l.sharedZone(d.Args[0], name, size, "limit_req"); err != nil {
		return err
	}
	z := l.requestZone(name)
	if z.key != nil {
		return sayAt(d.Args[0], "Y011", "", "%s \"%s\" is already bound to key \"%s\"", d.Name.Value, name, z.text)
	}
	z.key, z.text, z.rate, z.size = key, d.Args[0].Value, rate, size
	return nil
}

// parseRate reads "10r/s" or "30r/m" as thousandths of a request a second.
func parseRate(s string) (int64, bool) {
	scale := int64(1)
	s, perSecond := strings.CutSuffix(s, "r/s")
	if !perSecond {
		var perMinute bool
		if s, perMinute = strings.CutSuffix(s, "r/m"); perMinute {
			scale = 60
		}
	}
	n, ok := digits(s)
	return n * 1000 / scale, ok && n > 0 && n <= math.MaxInt64/1000/1000
}

// requestZone finds or makes a zone.
func (l *Level) requestZone(name string) *requestZone {
	zones := l.c.table.requestZones
	if zones[name] == nil {
		zones[name] = &requestZone{name: name, buckets: newBuckets()}
	}
	return zones[name]
}

func setLimitReq(l *Level, d *parser.Directive) error {
	var limit requestLimit
	for _, a := range d.Args {
		name, value, has := strings.Cut(a.Value, "=")
		switch {
		case name == "zone" && has:
			if err := l.sharedZone(a, value, 0, "limit_req"); err != nil {
				return err
			}
			limit.zone = l.requestZone(value)
		case (name == "burst" || name == "delay") && has:
			n, ok := digits(value)
			if !ok || n == 0 || n > math.MaxInt64/1000/1000 {
				return sayAt(a, "Y009", "a number of requests", "invalid %s value \"%s\"", name, a.Value)
			}
			if name == "burst" {
				limit.burst = n * 1000
			} else {
				limit.delay = n * 1000
			}
		case a.Value == "nodelay":
			limit.delay = math.MaxInt64
		default:
			return sayAt(a, "", "", "invalid parameter \"%s\"", a.Value)
		}
	}
	if limit.zone == nil {
		return say("\"%s\" must have \"zone\" parameter", d.Name.Value)
	}
	limits := &l.Conf.LimitReq.limits
	if limits.level == l && slices.ContainsFunc(limits.Items, func(o requestLimit) bool { return o.zone == limit.zone }) {
		return errDuplicate
	}
	limits.Add(l, limit)
	return nil
}

// maxRequestKey is how long a key may be.
const maxRequestKey = 65535

// handle runs in the preaccess phase (ngx_http_limit_req_handler).
func (c *limitReqConf) handle(x *Exchange) Code {
	status := &x.root().limited.request
	if *status != 0 {
		return Declined
	}
	verdict, excess, zone, delay := c.count(x)
	level := logInfo - logLevel(c.level)
	switch verdict {
	case bucketSkipped:
		return Declined
	case bucketBusy, bucketFull:
		if verdict == bucketBusy {
			x.Logf(level, "limiting requests%s, excess: %d.%03d by zone \"%s\"", dryRunNote(c.dryRun), excess/1000, excess%1000, zone.name)
		} else {
			x.Logf(logAlert, "could not allocate node in limit_req zone \"%s\"", zone.name)
		}
		if *status = limitRejected; c.dryRun {
			*status = limitRejectedDryRun
			return Declined
		}
		return Code(c.status)
	case bucketCounted, bucketHeld:
	}
	if *status = limitPassed; delay <= 0 {
		return Declined
	}
	x.Logf(min(level+1, logInfo), "delaying request%s, excess: %d.%03d, by zone \"%s\"", dryRunNote(c.dryRun), excess/1000, excess%1000, zone.name)
	if *status = limitDelayed; c.dryRun {
		*status = limitDelayedDryRun
		return Declined
	}
	return x.wait(delay)
}

func dryRunNote(on bool) string {
	if on {
		return ", dry run"
	}
	return ""
}

// count counts the request in all zones, in those before the last only if the
// last one has room, and says how long it has to wait.
func (c *limitReqConf) count(x *Exchange) (verdict bucketVerdict, excess int64, zone *requestZone, delay time.Duration) {
	limits := c.limits.Items
	var room [4]*bucket
	held := room[:0] // by limit; nil: its key was empty
	now := millis()
	for i := range limits {
		l := &limits[i]
		held, zone = append(held, nil), l.zone
		key := l.zone.key.Append(x.borrow(), x)
		if len(key) > maxRequestKey {
			x.Logf(logError, "the value of the \"%s\" key is more than 65535 bytes: \"%s\"", l.zone.text, key)
		} else if len(key) > 0 {
			verdict, excess = l.zone.find(key, now, l.burst, i == len(limits)-1, &held[i])
		}
		x.giveBack(key)
		if verdict > bucketHeld {
			break
		}
	}
	last := &limits[len(held)-1]
	switch verdict {
	case bucketSkipped:
		return verdict, 0, nil, 0
	case bucketBusy, bucketFull:
		for i, b := range held {
			if b != nil {
				limits[i].zone.free(b)
			}
		}
		return verdict, excess, zone, 0
	case bucketHeld:
		excess = 0
	case bucketCounted:
	}
	zone, delay = last.zone, last.wait(excess)
	for i := len(held) - 1; i >= 0; i-- {
		if held[i] == nil {
			continue
		}
		e := limits[i].zone.take(held[i], now)
		if d := limits[i].wait(e); d > delay {
			zone, excess, delay = limits[i].zone, e, d
		}
	}
	return verdict, excess, zone, delay
}

// wait is how long a request with an excess is delayed.
func (l *requestLimit) wait(excess int64) time.Duration {
	if excess <= l.delay {
		return 0
	}
	const most = int64(365 * 24 * time.Hour / time.Millisecond)
	return time.Duration(min((excess-l.delay)*1000/l.zone.rate, most)) * time.Millisecond
}
