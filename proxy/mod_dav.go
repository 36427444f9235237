package proxy

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"proxyctl/proxy/http1"
)

// ngx_http_dav_module: files are put, deleted, copied and moved, folders made
// (RFC 4918 without properties and locks).

// davConf is what the module knows at a level.
type davConf struct {
	methods    uint32 // bits by the index in davMethods; the first is off
	access     fs.FileMode
	createPath bool
	leastDepth int
}

var (
	davMethods = []string{"off", "put", "delete", "mkcol", "copy", "move"}
	davVerbs   = []string{"", "PUT", "DELETE", "MKCOL", "COPY", "MOVE"}
)

func davModule() Module {
	const in = inHTTPLevels
	return Module{
		Name: "ngx_http_dav_module",
		Commands: []Command{
			Bits(Command{Name: "dav_methods", In: in, Default: "off", Doc: "Allows methods of WebDAV."}, davMethods, func(c *Conf) *uint32 { return &c.DAV.methods }),
			{Name: "dav_access", In: in, Args: "1-3", Syntax: "users:permissions ...", Default: "user:rw", Doc: "Sets the permissions of what is created.", Set: setFileAccess(func(c *Conf) *fs.FileMode { return &c.DAV.access })},
			Flag(Command{Name: "create_full_put_path", In: in, Default: "off", Doc: "Makes missing folders when a file is put."}, func(c *Conf) *bool { return &c.DAV.createPath }),
			Number(Command{Name: "min_delete_depth", In: in, Default: "0", Doc: "Sets how deep in the tree files must be to be deleted."}, func(c *Conf) *int { return &c.DAV.leastDepth }),
		},
		Init:  func(c *Conf) { c.DAV = davConf{methods: 1, access: 0o600} },
		Phase: Content,
		Handler: func(c *Conf) Handler {
			if c.DAV.methods == 1 {
				return nil
			}
			return serveDAV
		},
	}
}

// serveDAV does what the method says (ngx_http_dav_handler).
func serveDAV(x *Exchange) Code {
	i := slices.Index(davVerbs, x.method)
	switch {
	case i < 0 || x.loc.Conf.DAV.methods&(1<<i) == 0:
		return Declined
	case x.trace != nil: // files are left alone
		x.trace.step("webdav", x.loc.Place, "%s would be done; let it succeed", x.method)
		return 204
	}
	return [...]func(*Exchange) Code{1: davPut, davDelete, davMakeFolder, davCopyMove, davCopyMove}[i](x)
}

// isCollection says whether the URI names a folder.
func (x *Exchange) isCollection() bool { return x.uri[len(x.uri)-1] == '/' }

// davPath maps the URI to a file; false for one outside of its folder.
func (x *Exchange) davPath() (string, bool) {
	path := x.path()
	if leavesRoot(path) { // Unlike nginx, which follows an alias out of its folder.
		x.Logf(logError, "%q leaves the folder of its alias", path)
		return "", false
	}
	return string(path), true
}

// davFailed logs what failed and gives the status for it (ngx_http_dav_error).
func (x *Exchange) davFailed(op, path string, err error, missing Code) Code {
	level, code := logCrit, Code(500)
	switch errnoOf(err) {
	case unix.ENOENT, unix.ENOTDIR, unix.ENAMETOOLONG:
		level, code = logError, missing
	case unix.EACCES, unix.EPERM:
		level, code = logError, 403
	case unix.EEXIST:
		level, code = logError, 405
	case unix.ENOSPC:
		code = 507
	}
	x.Logf(level, "%s", SystemError(op, path, err))
	return code
}

// davPut stores the body (ngx_http_dav_put_handler).
func davPut(x *Exchange) Code {
	if x.isCollection() {
		x.Logf(logError, "cannot PUT to a collection")
		return 409
	}
	if _, has := x.Header(http1.ContentRange); has {
		x.Logf(logError, "PUT with range is unsupported")
		return 501
	}
	path, ok := x.davPath()
	if !ok {
		return 404
	}
	x.body.keep = true
	if code := x.readBody(); code != OK {
		return code
	}
	if x.body.file == nil {
		x.Logf(logError, "PUT request body must be in a file")
		return 500
	}
	status := Code(201)
	if info, err := os.Stat(path); err == nil {
		status = 204
		if info.IsDir() {
			x.Logf(logError, "%s", errorWithCode(fmt.Sprintf("\"%s\" could not be created", path), unix.EISDIR))
			return 409
		}
	}
	c := &x.loc.Conf.DAV
	m := fileMove{from: x.body.path, to: path, access: c.access, folders: folderAccess(c.access), createPath: c.createPath}
	if date, has := x.Header(http1.Date); has {
		if t, ok := parseHTTPTime(date); ok {
			m.modified = time.Unix(t, 0)
		}
	}
	if err := m.run(); err != nil {
		x.Logf(logCrit, "%s", err)
		return 500
	}
	x.body.remove = false
	if status == 201 {
		x.Out.SetLocation(x.davLocation())
	}
	return status
}

// davLocation is the URI, for the Location of what was created.
func (x *Exchange) davLocation() []byte {
	start := len(x.arena)
	x.arena = appendEscaped(x.arena, x.uri, &escapeURI)
	return x.arena[start:len(x.arena):len(x.arena)]
}

// davBodiless refuses a body.
func (x *Exchange) davBodiless(what string) bool {
	if !x.hasBody() {
		return true
	}
	x.Logf(logError, "%s unsupported", what)
	return false
}

// davDelete deletes a file or a folder with all in it (ngx_http_dav_delete_handler).
func davDelete(x *Exchange) Code {
	if !x.davBodiless("DELETE with body is") {
		return 415
	}
	if code := x.deepEnough(); code != OK {
		return code
	}
	path, ok := x.davPath()
	if !ok {
		return 404
	}
	info, err := lstat(path)
	if err != nil {
		missing := Code(404)
		if errnoOf(err) == unix.ENOTDIR {
			missing = 409
		}
		return x.davFailed("lstat()", path, err, missing)
	}
	if !info.IsDir() {
		if depth := x.davDepth(0); depth != 0 && depth != depthInfinity {
			x.Logf(logError, "\"Depth\" header must be 0 or infinity")
			return 400
		}
	} else {
		if !x.isCollection() {
			x.Logf(logError, "%s", errorWithCode(fmt.Sprintf("DELETE \"%s\" failed", path), unix.EISDIR))
			return 409
		}
		if x.davDepth(depthInfinity) != depthInfinity {
			x.Logf(logError, "\"Depth\" header must be infinity")
			return 400
		}
		path = strings.TrimSuffix(path, "/")
	}
	if code := x.deletePath(path, info.IsDir()); code != OK {
		return code
	}
	return 204
}

// deepEnough is min_delete_depth.
func (x *Exchange) deepEnough() Code {
	least := x.loc.Conf.DAV.leastDepth
	if least == 0 {
		return OK
	}
	depth := 0
	for i, c := range x.uri {
		if c != '/' {
			continue
		}
		if depth++; depth >= least && i+1 < len(x.uri) {
			return OK
		}
	}
	x.Logf(logError, "insufficient URI depth:%d to DELETE", depth)
	return 409
}

// lstat asks about a name as it is written: behind a slash there must be a folder.
func lstat(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() && strings.HasSuffix(path, "/") {
		return nil, &fs.PathError{Op: "lstat", Path: path, Err: unix.ENOTDIR}
	}
	return info, err
}

// deletePath deletes a file, or a folder with what is in it.
func (x *Exchange) deletePath(path string, folder bool) Code {
	op, remove := "unlink()", unix.Unlink
	if folder {
		op, remove = "rmdir()", unix.Rmdir
		if !x.emptyFolder(path) {
			return 500
		}
	}
	if err := remove(path); err != nil {
		return x.davFailed(op, path, err, 404)
	}
	return OK
}

// emptyFolder deletes what is in a folder. What cannot be deleted is told about
// and stays; false when the folder cannot be read.
func (x *Exchange) emptyFolder(path string) bool {
	entries, err := os.ReadDir(path)
	if err != nil {
		x.Logf(logCrit, "%s", SystemError("opendir()", path, err))
		return false
	}
	for _, e := range entries {
		name := path + "/" + e.Name()
		op, remove := "unlink()", unix.Unlink
		if e.IsDir() {
			op, remove = "rmdir()", unix.Rmdir
			x.emptyFolder(name)
		}
		if err := remove(name); err != nil {
			x.davFailed(op, name, err, 0)
		}
	}
	return true
}

// davMakeFolder makes a folder (ngx_http_dav_mkcol_handler).
func davMakeFolder(x *Exchange) Code {
	if !x.davBodiless("MKCOL with body is") {
		return 415
	}
	if !x.isCollection() {
		x.Logf(logError, "MKCOL can create a collection only")
		return 409
	}
	path, ok := x.davPath()
	if !ok {
		return 404
	}
	path = strings.TrimSuffix(path, "/")
	if err := os.Mkdir(path, folderAccess(x.loc.Conf.DAV.access)); err != nil {
		return x.davFailed("mkdir()", path, err, 409)
	}
	x.Out.SetLocation(x.davLocation())
	return 201
}

// What Depth can say.
const (
	depthInfinity = -1
	depthInvalid  = -2
)

// davDepth reads Depth.
func (x *Exchange) davDepth(without int) int {
	value, has := x.namedField("Depth")
	if !has {
		return without
	}
	switch string(value) {
	case "0":
		return 0
	case "1":
		return 1
	case "infinity":
		return depthInfinity
	}
	x.Logf(logError, "client sent invalid \"Depth\" header: \"%s\"", value)
	return depthInvalid
}

// namedField finds a field that nothing else asks for.
func (x *Exchange) namedField(name string) ([]byte, bool) {
	for i := range x.Req.Fields {
		if f := &x.Req.Fields[i]; strings.EqualFold(string(f.Name), name) {
			return f.Value, true
		}
	}
	return nil, false
}

// davCopy is a file or folder and where it is to go.
type davCopy struct {
	x         *Exchange
	said      []byte // Destination
	uri       []byte // its path
	overwrite bool
	from, to  string // without a slash at the end
	slash     bool   // to had one
}

// davCopyMove copies or moves (ngx_http_dav_copy_move_handler).
func davCopyMove(x *Exchange) Code {
	if !x.davBodiless("COPY and MOVE with body are") {
		return 415
	}
	c := &davCopy{x: x}
	for _, step := range []func() Code{c.destination, c.depth, c.overwriting, c.paths} {
		if code := step(); code != OK {
			return code
		}
	}
	return c.run()
}

// destination reads Destination.
func (c *davCopy) destination() Code {
	x := c.x
	value, has := x.namedField("Destination")
	if !has {
		x.Logf(logError, "client sent no \"Destination\" header")
		return 400
	}
	c.said = value
	uri := value
	if len(uri) == 0 || uri[0] != '/' {
		if len(x.host) == 0 {
			x.Logf(logError, "client sent no \"Host\" header")
			return 400
		}
		scheme := "http://"
		if x.client.tls {
			scheme = "https://"
		}
		rest, ok := bytes.CutPrefix(value, []byte(scheme))
		if !ok {
			return c.invalid()
		}
		if rest, ok = bytes.CutPrefix(rest, x.host); !ok {
			x.Logf(logError, "\"Destination\" URI \"%s\" is handled by different repository than the source URI", value)
			return 400
		}
		slash := bytes.IndexByte(rest, '/')
		if slash < 0 {
			return c.invalid()
		}
		uri = rest[slash:]
	}
	if c.uri, _, has = x.unsafeURI(uri); !has {
		x.Logf(logError, "unsafe URI \"%s\" was detected", uri)
		return c.invalid()
	}
	if x.isCollection() != (value[len(value)-1] == '/') {
		x.Logf(logError, "both URI \"%s\" and \"Destination\" URI \"%s\" should be either collections or non-collections", x.uri, value)
		return 409
	}
	if core := &x.loc.Conf.Core; core.Alias && core.aliasLength != wholePath && len(c.uri) < core.aliasLength {
		return c.invalid()
	}
	return OK
}

func (c *davCopy) invalid() Code {
	c.x.Logf(logError, "client sent invalid \"Destination\" header: \"%s\"", c.said)
	return 400
}

func (c *davCopy) depth() Code {
	switch depth := c.x.davDepth(depthInfinity); {
	case depth == depthInfinity:
	case c.x.isMethod("MOVE"):
		c.x.Logf(logError, "\"Depth\" header must be infinity")
		return 400
	case depth != 0:
		c.x.Logf(logError, "\"Depth\" header must be 0 or infinity")
		return 400
	}
	return OK
}

// overwriting reads Overwrite.
func (c *davCopy) overwriting() Code {
	value, has := c.x.namedField("Overwrite")
	switch {
	case !has, bytes.EqualFold(value, []byte("T")):
		c.overwrite = true
	case bytes.EqualFold(value, []byte("F")):
	default:
		c.x.Logf(logError, "client sent invalid \"Overwrite\" header: \"%s\"", value)
		return 400
	}
	return OK
}

// paths maps both URIs to files and compares them.
func (c *davCopy) paths() Code {
	x := c.x
	from, ok := x.davPath()
	if !ok {
		return 404
	}
	source := x.uri
	x.uri = c.uri
	to, ok := x.davPath()
	x.uri = source
	if !ok {
		return 404
	}
	c.from = strings.TrimSuffix(mergeSlashes(from), "/")
	to = mergeSlashes(to)
	c.to, c.slash = strings.CutSuffix(to, "/")
	switch {
	case c.from == c.to:
		return c.sameLocation()
	case c.slash && (strings.HasPrefix(c.to, c.from+"/") || strings.HasPrefix(c.from, c.to+"/")):
		return c.intoCollection(403)
	}
	return OK
}

func (c *davCopy) sameLocation() Code {
	c.x.Logf(logError, "both URI \"%s\" and \"Destination\" URI \"%s\" point to the same location", c.x.uri, c.said)
	return 403
}

func (c *davCopy) intoCollection(code Code) Code {
	// The spelling is nginx's, too: "%Ved" behind the method's name.
	c.x.Logf(logError, "\"%s\" could not be %sed to collection \"%s\"", c.x.uri, c.x.method, c.said)
	return code
}

// mergeSlashes makes one slash of several.
func mergeSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// run looks at what is there and does the work.
func (c *davCopy) run() Code {
	x := c.x
	folder := false // what is to be overwritten
	there, err := os.Lstat(c.to)
	switch {
	case err != nil && errnoOf(err) != unix.ENOENT:
		return x.davFailed("lstat()", c.to, err, 404)
	case err != nil:
		c.overwrite, there = false, nil
	case there.IsDir() && !c.slash:
		return c.intoCollection(409)
	case !c.overwrite:
		x.Logf(logError, "%s", errorWithCode(fmt.Sprintf("\"%s\" could not be created", c.to), unix.EEXIST))
		return 412
	default:
		folder = there.IsDir()
	}
	name := c.from
	if x.isCollection() {
		name += "/"
	}
	info, err := lstat(name)
	switch {
	case err != nil:
		return x.davFailed("lstat()", name, err, 404)
	case !info.IsDir():
		return c.file(there)
	case !x.isCollection():
		x.Logf(logError, "\"%s\" is collection", x.uri)
		return 400
	}
	if c.overwrite {
		if code := x.deletePath(c.to, folder); code != OK {
			return code
		}
	}
	return c.folder(info)
}

// file copies or moves a file.
func (c *davCopy) file(there fs.FileInfo) Code {
	x := c.x
	if x.isMethod("MOVE") {
		m := fileMove{from: c.from, to: c.to, folders: folderAccess(x.loc.Conf.DAV.access), createPath: true}
		if err := m.run(); err != nil {
			x.Logf(logCrit, "%s", err)
			return 500
		}
		return 204
	}
	// Unlike nginx, which would cut it to nothing, a file is not copied onto itself
	// under another name.
	if there != nil {
		from, err := os.Stat(c.from)
		to, missing := os.Stat(c.to)
		if err == nil && missing == nil && os.SameFile(from, to) {
			return c.sameLocation()
		}
	}
	if err := copyFile(c.from, c.to, 0); err != nil {
		x.Logf(logCrit, "%s", err)
		return 500
	}
	return 204
}

// folder copies or moves a folder.
func (c *davCopy) folder(info fs.FileInfo) Code {
	x := c.x
	move := x.isMethod("MOVE")
	if move && os.Rename(c.from, c.to) == nil {
		return 201
	}
	if err := os.Mkdir(c.to, info.Mode().Perm()); err != nil {
		return x.davFailed("mkdir()", c.to, err, 404)
	}
	if !x.copyFolder(c.from, c.to) {
		return 500
	}
	if move {
		if code := x.deletePath(c.from, true); code != OK {
			return code
		}
	}
	return 201
}

// copyFolder copies what is in a folder: files and folders, no links. What cannot
// be copied is told about; false when the folder cannot be read.
func (x *Exchange) copyFolder(from, to string) bool {
	entries, err := os.ReadDir(from)
	if err != nil {
		x.Logf(logCrit, "%s", SystemError("opendir()", from, err))
		return false
	}
	for _, e := range entries {
		source, target := from+"/"+e.Name(), to+"/"+e.Name()
		info, err := e.Info()
		if err != nil {
			x.Logf(logCrit, "%s", SystemError("lstat()", source, err))
			continue
		}
		switch {
		case e.IsDir():
			if err := os.Mkdir(target, folderAccess(info.Mode().Perm())); err != nil {
				x.davFailed("mkdir()", target, err, 0)
			}
			x.copyFolder(source, target)
			err = setModified(target, info.ModTime())
		case e.Type().IsRegular():
			err = copyFile(source, target, unix.O_NOFOLLOW)
		}
		if err != nil {
			x.Logf(logCrit, "%s", err)
		}
	}
	return true
}
