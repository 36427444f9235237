package proxy

import (
	"math"
	"slices"
	"strings"
	"time"

	"proxyctl/parser"
	"proxyctl/proxy/cache"
)

// What a level says about keeping answers of servers, for every pass directive
// under its prefix (nginx: the cache part of ngx_http_upstream_conf_t, and
// ngx_http_file_cache_set_slot).

// cacheConf is what a level says about caching.
type cacheConf struct {
	zone  *cacheZone // nil for none, or for the one that value names
	value *Value
	key   *Value // nil for that of the module

	bypass, noCache   List[*Value]
	valid             List[cacheValid]
	minUses           int
	maxRangeOffset    int64
	useStale, methods uint32
	lock              bool
	lockTimeout       time.Duration
	lockAge           time.Duration
	revalidate        bool
	convertHead       bool
	backgroundUpdate  bool
	in                *Level // where it is said what keeps answers
}

// cacheValid is how long answers with a status are valid; status 0 is any.
type cacheValid struct {
	status int
	time   time.Duration
}

// cacheZone is what a cache_path directive says.
type cacheZone struct {
	name     string
	declared bool
	options  cache.Options
	besides  bool // files are made where they will stay, not in temp_path
	zone     *cache.Zone
	passedOn bool // the next generation has the zone
}

// The bits of cache_methods, in the order of cacheMethods.
const (
	cacheGET = 1 << iota
	cacheHEAD
	cachePOST
)

func cacheMethods() []string { return []string{"GET", "HEAD", "POST"} }

func cacheDefaults() cacheConf {
	return cacheConf{
		minUses: 1, maxRangeOffset: math.MaxInt64, useStale: nextOff,
		lockTimeout: 5 * time.Second, lockAge: 5 * time.Second,
	}
}

// cacheRows makes the rows that all pass directives share. stale are the words
// of cache_use_stale.
func cacheRows(prefix string, stale []string, of func(*Conf) *upstreamConf) []Command {
	row := func(name, defaults, doc string) Command {
		return Command{Name: prefix + name, In: inHTTPLevels, Default: defaults, Doc: doc}
	}
	flag := func(c Command, field func(*cacheConf) *bool) Command {
		return Flag(c, func(c *Conf) *bool { return field(&of(c).cache) })
	}
	wait := func(c Command, field func(*cacheConf) *time.Duration) Command {
		return Time(c, func(c *Conf) *time.Duration { return field(&of(c).cache) })
	}
	when := func(c Command, field func(*cacheConf) *List[*Value]) Command {
		return Predicates(c, func(c *Conf) *List[*Value] { return field(&of(c).cache) })
	}
	path := Command{
		Name: prefix + "_cache_path", In: InHTTP, Args: "2+", Repeat: true, Doc: "Declares a cache: its folder, its name and its limits.",
		Syntax:  "path [levels=levels] [use_temp_path=on|off] keys_zone=name:size [inactive=time] [max_size=size] [min_free=size] [manager_files=number] [manager_sleep=time] [manager_threshold=time] [loader_files=number] [loader_sleep=time] [loader_threshold=time]",
		Differs: "files in the folder that are not of the cache are let alone; what cannot be kept is answered all the same", Set: setCachePath(prefix),
	}
	valid := row("_cache_valid", "", "Sets how long answers are valid that do not say it.")
	valid.Repeat = true
	return []Command{
		path,
		row("_cache", "off", "Keeps answers in a cache.").with("1", "zone | off", setCache(prefix, of)),
		valid.with("1+", "[code ...] time", setCacheValid(of)),
		ValueOf(withSyntax(row("_cache_key", "", "Sets what answers are found by."), "string"), func(c *Conf) **Value { return &of(c).cache.key }),
		when(row("_cache_bypass", "", "Does not look into the cache when any of the strings is true."), func(c *cacheConf) *List[*Value] { return &c.bypass }),
		when(row("_no_cache", "", "Does not keep the answer when any of the strings is true."), func(c *cacheConf) *List[*Value] { return &c.noCache }),
		Number(row("_cache_min_uses", "1", "Sets how often an answer must be asked for before it is kept."), func(c *Conf) *int { return &of(c).cache.minUses }),
		Offset(row("_cache_max_range_offset", "", "Sets up to which offset an answer to Range is kept."), func(c *Conf) *int64 { return &of(c).cache.maxRangeOffset }),
		Bits(row("_cache_use_stale", "off", "Sets when an answer is used that is no longer valid."), stale, func(c *Conf) *uint32 { return &of(c).cache.useStale }),
		Bits(row("_cache_methods", "GET HEAD", "Sets the methods whose answers are kept."), cacheMethods(), func(c *Conf) *uint32 { return &of(c).cache.methods }),
		flag(row("_cache_lock", "off", "Lets one request at a time fetch an answer."), func(c *cacheConf) *bool { return &c.lock }),
		wait(row("_cache_lock_timeout", "5s", "Sets how long others wait for it."), func(c *cacheConf) *time.Duration { return &c.lockTimeout }),
		wait(row("_cache_lock_age", "5s", "Sets after which time one more request may fetch it."), func(c *cacheConf) *time.Duration { return &c.lockAge }),
		flag(row("_cache_revalidate", "off", "Asks servers whether an answer has changed."), func(c *cacheConf) *bool { return &c.revalidate }),
		flag(row("_cache_background_update", "off", "Updates answers behind the client's back."), func(c *cacheConf) *bool { return &c.backgroundUpdate }),
	}
}

func withSyntax(c Command, syntax string) Command {
	c.Syntax = syntax
	return c
}

// setCache reads the name of a zone, which may be declared later.
func setCache(prefix string, of func(*Conf) *upstreamConf) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		c, arg := &of(l.Conf).cache, d.Args[0]
		c.zone, c.value, c.in = nil, nil, l
		if arg.Value == "off" {
			return nil
		}
		if s := &of(l.Conf).store; s.in == l && s.on {
			return sayAt(d.Name, "", "keep answers in one way", "%q directive is incompatible with \"%s_store\"", d.Name.Value, prefix)
		}
		v, err := l.value(arg.Value)
		if err != nil {
			return err
		}
		name, static := v.Static()
		if !static {
			c.value = v
			return nil
		}
		if name == "" {
			return sayAt(arg, "", "the name of a keys_zone, or off", "zero size shared memory zone \"\"")
		}
		z := l.cacheZone(prefix, name)
		c.zone = z
		l.AtFinish(func() {
			if !z.declared {
				l.c.failLater(parser.Error, arg.Range, parser.Range{}, "", prefix+"_cache_path declares zones: keys_zone="+name+":10m", "\"%s_cache\" zone \"%s\" is unknown", prefix, name)
			}
		})
		return nil
	}
}

// cacheZone finds a zone by its name, or notes that there is to be one.
func (l *Level) cacheZone(prefix, name string) *cacheZone {
	zones, key := l.c.table.cacheZones, prefix+" "+name
	if zones[key] == nil {
		zones[key] = &cacheZone{name: name}
	}
	return zones[key]
}

// setCachePath declares a cache.
func setCachePath(prefix string) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		o := cache.Options{
			Path: l.c.opts.prefixed(strings.TrimSuffix(d.Args[0].Value, "/")), Inactive: 10 * time.Minute,
			Loader:  cache.Pace{Files: 100, Sleep: 50 * time.Millisecond, Threshold: 200 * time.Millisecond},
			Manager: cache.Pace{Files: 100, Sleep: 50 * time.Millisecond, Threshold: 200 * time.Millisecond},
		}
		log := l.Conf.Core.ErrorLog
		o.Log = func(s cache.Severity, text string) { log.logf(cacheLevel(s), "%s", text) }
		p := cachePath{options: o, temp: true}
		for _, a := range d.Args[1:] {
			if err := p.read(a); err != nil {
				return err
			}
		}
		if p.size == 0 || p.name == "" {
			return say("\"%s\" must have \"keys_zone\" parameter", d.Name.Value)
		}
		if err := l.sharedZone(p.zone, p.name, p.size, prefix+"_cache"); err != nil {
			return err
		}
		z := l.cacheZone(prefix, p.name)
		if z.declared {
			return sayAt(p.zone, "", "choose another name", "duplicate zone \"%s\"", p.name)
		}
		// nginx takes 128 bytes of the zone for each answer
		p.options.Entries = int(p.size / 128)
		z.declared, z.options, z.besides = true, p.options, !p.temp
		z.zone = cache.NewZone(z.options)
		l.c.table.temps[z.options.Path] = true
		return nil
	}
}

// cacheLevel is the level of the error log for what a cache tells.
func cacheLevel(s cache.Severity) logLevel {
	return [...]logLevel{cache.Alert: logAlert, cache.Crit: logCrit, cache.Notice: logNotice, cache.Info: logInfo}[s]
}

// cachePath is a cache_path directive that is being read.
type cachePath struct {
	options cache.Options
	temp    bool
	zone    parser.Arg
	name    string
	size    int64
}

func (p *cachePath) read(a parser.Arg) error {
	name, text, _ := strings.Cut(a.Value, "=")
	o := &p.options
	pace := &o.Loader
	if strings.HasPrefix(name, "manager_") {
		pace = &o.Manager
	}
	ok, said := true, "invalid "+name+" value \"%s\""
	switch name {
	case "levels":
		ok, said = p.readLevels(text), "invalid \"levels\" \"%s\""
	case "use_temp_path":
		if p.temp = text == "on"; !p.temp && text != "off" {
			return sayAt(a, "", "", "invalid use_temp_path value \"%s\", it must be \"on\" or \"off\"", a.Value)
		}
	case "keys_zone":
		p.zone = a
		p.name, text, ok = strings.Cut(text, ":")
		if ok {
			p.size, ok = parseSize(text)
		}
		said = "invalid keys zone size \"%s\""
		if ok && p.size < 8<<10 {
			return sayAt(a, "Y009", "at least 8k", "keys zone \"%s\" is too small", a.Value)
		}
	case "inactive":
		o.Inactive, ok = parseTime(text, true)
	case "max_size":
		o.MaxSize, ok = parseOffset(text)
	case "min_free":
		o.MinFree, ok = parseOffset(text)
	case "loader_files", "manager_files":
		pace.Files, ok = parseNumber(text)
	case "loader_sleep", "manager_sleep":
		pace.Sleep, ok = parseTime(text, false)
	case "loader_threshold", "manager_threshold":
		pace.Threshold, ok = parseTime(text, false)
	default:
		ok, said = false, "invalid parameter \"%s\""
	}
	if !ok {
		return sayAt(a, "Y009", "", said, a.Value)
	}
	return nil
}

// readLevels reads up to three numbers of digits, each 1 or 2.
func (p *cachePath) readLevels(text string) bool {
	words := strings.Split(text, ":")
	for _, w := range words {
		if w != "1" && w != "2" {
			return false
		}
		p.options.Levels = append(p.options.Levels, int(w[0]-'0'))
	}
	return len(words) <= 3
}

func setCacheValid(of func(*Conf) *upstreamConf) func(*Level, *parser.Directive) error {
	return func(l *Level, d *parser.Directive) error {
		c := &of(l.Conf).cache
		last := len(d.Args) - 1
		t, ok := parseTime(d.Args[last].Value, true)
		if !ok {
			return sayAt(d.Args[last], "Y009", "", "invalid time value \"%s\"", d.Args[last].Value)
		}
		if last == 0 {
			for _, status := range []int{200, 301, 302} {
				c.valid.Add(l, cacheValid{status, t})
			}
		}
		for _, a := range d.Args[:last] {
			status, ok := parseNumber(a.Value)
			if a.Value == "any" {
				status = 0
			} else if !ok || status < 100 || status > 599 {
				return sayAt(a, "Y009", "a status from 100 to 599, or any", "invalid status \"%s\"", a.Value)
			}
			c.valid.Add(l, cacheValid{status, t})
		}
		return nil
	}
}

// finish derives what depends on several directives.
func (c *cacheConf) finish() {
	if c.useStale&nextOff != 0 {
		c.useStale = nextOff
	}
	if c.useStale&nextError != 0 {
		c.useStale |= nextNoLive
	}
	c.methods |= cacheGET | cacheHEAD
}

// cacheConditions are the fields that requests for the cache have in the place
// of the client's conditions, as name and value: the whole answer is asked for,
// unless it is as it was. What is empty is left out.
func cacheConditions() [][2]string {
	return [][2]string{
		{"If-Modified-Since", "$upstream_cache_last_modified"},
		{"If-Unmodified-Since", ""},
		{"If-None-Match", "$upstream_cache_etag"},
		{"If-Match", ""},
		{"Range", ""},
		{"If-Range", ""},
	}
}

// on says whether there may be a cache.
func (c *cacheConf) on() bool { return c.zone != nil || c.value != nil }

// validFor is how long an answer with a status is valid that does not say it.
func (c *cacheConf) validFor(status int) time.Duration {
	i := slices.IndexFunc(c.valid.Items, func(v cacheValid) bool { return v.status == 0 || v.status == status })
	if i < 0 {
		return 0
	}
	return c.valid.Items[i].time
}

// checkCaches says whether the caches of the table before can go on under this
// one.
func (t *Table) checkCaches(old *Table) error {
	for key, z := range t.cacheZones {
		if o := old.cacheZones[key]; o != nil {
			if err := o.options.Compatible(z.options); err != nil {
				return say("cache \"%s\" %v", z.name, err)
			}
		}
	}
	return nil
}

// inheritCaches takes the caches of the table before over. What is left of them
// ends with that table.
func (t *Table) inheritCaches(old *Table) {
	for key, z := range t.cacheZones {
		if o := old.cacheZones[key]; o != nil {
			z.zone, o.passedOn = o.zone, true
			z.zone.Configure(z.options)
		}
	}
}

// startCaches begins to look after the files of caches.
func (t *Table) startCaches() {
	for _, z := range t.cacheZones {
		z.zone.Start()
		t.onClose(func() {
			if !z.passedOn {
				z.zone.Stop()
			}
		})
	}
}
