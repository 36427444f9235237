package validators

import (
	"testing"
)

// TestSites takes what operators write beyond the examples through every language.
func TestSites(t *testing.T) {
	api := newGatewayAPI(t)
	for _, c := range []struct {
		name, text              string
		files                   map[string]string
		asks                    []string
		caddy, haproxy, gateway outcome
	}{
		{
			name: "conditions",
			text: `server {
    listen 8080;
    server_name a.test www.a.test;
    if ($host = www.a.test) {
        return 301 http://a.test$request_uri;
    }
    if ($request_method !~ ^(GET|HEAD|POST|PUT|DELETE)$) {
        return 405;
    }
    if ($http_user_agent ~* (bot|crawler)) {
        return 403;
    }
    if ($host ~ ^(.+)\.old\.test$) {
        return 302 http://$1.new.test$request_uri;
    }
    location / {
        proxy_pass http://127.0.0.1:5000;
        proxy_set_header Host $http_host;
    }
    location /api/ {
        if ($request_method = DELETE) {
            return 403 "nobody deletes\n";
        }
        if ($http_x_token = "") {
            return 401;
        }
        if ($cookie_old) {
            rewrite ^/api/(.*)$ /new/$1 permanent;
        }
        proxy_pass http://127.0.0.1:5000;
    }
    location /fields/ {
        add_header X-A all;
        if ($http_x_given ~ ^some) {
            add_header X-A some always;
        }
        proxy_pass http://127.0.0.1:5000;
    }
    location /readable/ {
        limit_except GET {
            deny all;
        }
        proxy_pass http://127.0.0.1:5000;
    }
}
`,
			asks: []string{
				"http://www.a.test/x?y", "http://a.test/x?y", "PATCH http://a.test/", "PUT http://a.test/\n\nbody", "http://a.test/\nUser-Agent: SomeBot/1", "http://x.old.test/p?q",
				"DELETE http://a.test/api/x\nX-Token: 1", "http://a.test/api/x", "http://a.test/api/x\nX-Token: 1", "http://a.test/api/x/y?z\nX-Token: 1\r\nCookie: old=1",
				"http://a.test/api/x\nX-Token: 1\r\nCookie: old=0", "http://a.test/fields/x", "http://a.test/fields/x\nX-Given: something", "http://a.test/readable/x", "HEAD http://a.test/readable/x", "POST http://a.test/readable/x\n\nbody",
			},
			gateway: outcome{refused: []string{"if", "limit_except", "return", "server"}, why: "rules know methods and fields that are equal to something"},
		},
		{
			name: "locations in locations",
			text: `server {
    listen 8080;
    location /app/ {
        proxy_pass http://127.0.0.1:5000;
        location ~ \.(png|css)$ {
            add_header X-A inner;
            return 200 "inner $1\n";
        }
        location /app/deep/ {
            proxy_pass http://127.0.0.1:5001/;
        }
        location = /app/one {
            return 200 "one\n";
        }
    }
    location /app/b/ {
        return 200 "b\n";
    }
    location ~ \.css$ {
        return 200 "outer\n";
    }
    location ^~ /keep/ {
        return 200 "kept\n";
    }
    location /keep/not/ {
        return 200 "not kept\n";
    }
    location ~ ^/g(\d+)/ {
        location ~ /x(.)$ {
            return 200 "inner $1\n";
        }
        location ~ /y$ {
            return 200 "y\n";
        }
        return 200 "g $1\n";
    }
    location /own/ {
        internal;
        return 200 "hidden\n";
    }
}
`,
			asks: []string{
				"http://a/app/x", "http://a/app/x.png", "http://a/app/x.css", "http://a/app/deep/x", "http://a/app/deep/x.css", "http://a/app/deep", "http://a/app/one", "http://a/app/one.css",
				"http://a/app/b/x", "http://a/app/b/x.css", "http://a/app/b/x.png", "http://a/x.css", "http://a/x.png", "http://a/keep/x", "http://a/keep/x.css", "http://a/keep/not/x", "http://a/keep/not/x.css",
				"http://a/g12/z", "http://a/g12/xq", "http://a/g12/y", "http://a/own/x", "http://a/none",
			},
			caddy:   outcome{partial: []string{"internal"}, why: "nothing leads to what is hidden"},
			haproxy: outcome{partial: []string{"internal"}, why: "nothing leads to what is hidden"},
			gateway: outcome{refused: []string{"internal", "location", "return", "server"}, why: "a gateway knows no expressions and answers nothing itself"},
		},
		{
			name:  "passwords",
			files: map[string]string{"users": "joe:$2b$04$vpbtnm/wDeywTpLuwVbD6eQr0ZpBAeHtbWVJt1/TWKJ.isJejoqRu\n"},
			text: `server {
    listen 8080;
    auth_basic "staff only";
    auth_basic_user_file users;
    location / {
        proxy_pass http://127.0.0.1:5000;
    }
    location /open/ {
        auth_basic off;
        proxy_pass http://127.0.0.1:5000;
    }
    location /near/ {
        allow 127.0.0.1;
        deny all;
        proxy_pass http://127.0.0.1:5000;
    }
    location /far/ {
        deny 127.0.0.1;
        proxy_pass http://127.0.0.1:5000;
    }
    location /closed/ {
        deny all;
        add_header X-A always always;
        add_header X-B successes;
    }
}
`,
			asks: []string{
				"http://a/", "http://a/\nAuthorization: Basic am9lOnNlY3JldA==", "http://a/\nAuthorization: Basic am9lOndyb25n", "http://a/open/x", "http://a/near/x",
				"http://a/near/x\nAuthorization: Basic am9lOnNlY3JldA==", "http://a/far/x\nAuthorization: Basic am9lOnNlY3JldA==", "http://a/./far/x\nAuthorization: Basic am9lOnNlY3JldA==", "http://a/%66ar/x\nAuthorization: Basic am9lOnNlY3JldA==", "http://a/closed/\nAuthorization: Basic am9lOnNlY3JldA==",
			},
			gateway: outcome{refused: []string{"auth_basic", "deny", "server"}, why: "routes know neither passwords nor addresses of clients"},
		},
		{
			name:  "foreign hashes",
			files: map[string]string{"users": "joe:$apr1$salt$Xxd1irWT9ycqoYxGFn4cb.\n"},
			text: `server {
    listen 8080;
    location / {
        auth_basic closed;
        auth_basic_user_file users;
        proxy_pass http://127.0.0.1:5000;
    }
}
`,
			caddy:   outcome{refused: []string{"auth_basic_user_file"}, why: "Caddy knows bcrypt only"},
			haproxy: outcome{refused: []string{"auth_basic_user_file"}, why: "HAProxy knows what crypt(3) knows"},
			gateway: outcome{refused: []string{"auth_basic", "server"}, why: "routes know no passwords"},
		},
		{
			name: "rewrites",
			text: `server {
    listen 8080;
    rewrite ^/moved/(.*)$ https://b.test/$1?k=1 permanent;
    rewrite ^/bare/(.*)$ /new/$1? redirect;
    rewrite ^/short/(.*)$ /long/$1 last;
    location /long/ {
        proxy_pass http://127.0.0.1:5000;
    }
    location /inner/ {
        rewrite ^/inner/(\d+)/(.*)$ /items/$2/$1 break;
        proxy_pass http://127.0.0.1:5000;
    }
    location /args/ {
        rewrite ^/args/(.*)$ /to/$1 permanent;
    }
    location = /exact {
        proxy_pass http://127.0.0.1:5000/other;
    }
    location /php {
        return 307 https://b.test$request_uri;
    }
    location / {
        return 404 "not here: $uri $is_args$args\n";
    }
}
`,
			asks: []string{
				"http://a/moved/x", "http://a/moved/x?y=2", "http://a/bare/x?y", "http://a/short/x?y=1", "http://a/short/", "http://a/long/x", "http://a/inner/12/ab?c", "http://a/inner/xx/ab?c",
				"http://a/args/x?y", "http://a/args/x", "http://a/exact", "http://a/exact?q=1", "http://a/phpinfo?x", "http://a/none?x", "http://a/inner/12/a%20b", "http://a/inner/12/a%2520b", "http://a/inner/12/a%3Fb", "http://a//inner//12//x", "http://a/sh%6Frt/x", "http://a//short/y?z",
			},
			gateway: outcome{refused: []string{"location", "return", "rewrite", "server"}, why: "only the beginning of a path can be replaced"},
		},
		{
			name: "files",
			files: map[string]string{
				"site/index.html": "the index\n", "site/a.txt": "a\n", "site/sub/index.html": "of sub\n", "site/app.html": "the app\n",
				"site/pages/one.html": "one\n", "other/b.txt": "b\n", "site/deep/c.txt": "c\n",
			},
			text: `server {
    listen 8080;
    root __DIR__/site;
    add_header X-A yes;
    add_header X-B always always;
    location / {
        try_files $uri $uri/ @app;
    }
    location @app {
        proxy_pass http://127.0.0.1:5000;
    }
    location /other/ {
        alias __DIR__/other/;
    }
    location /pages/ {
        try_files $uri $uri.html =404;
    }
    location /deep/ {
        try_files $uri /app.html;
    }
    location = /app.html {
        internal;
        add_header X-A app;
    }
    location /sub/ {
        index index.html;
    }
}
`,
			asks: []string{
				"http://a/", "http://a/a.txt", "http://a/sub", "http://a/sub?x", "http://a/sub/", "http://a/none?x=y", "http://a/other/b.txt", "http://a/other/none", "http://a/pages/one",
				"http://a/pages/two", "http://a/deep/c.txt", "http://a/deep/d.txt", "http://a/app.html", "http://a/sub/none", "HEAD http://a/a.txt",
			},
			haproxy: outcome{refused: []string{"root"}, why: "HAProxy serves no files"},
			gateway: outcome{refused: []string{"return", "root"}, why: "a gateway serves no files and answers nothing itself"},
		},
		{
			name: "passing on",
			text: `upstream app {
    least_conn;
    server 127.0.0.1:5000;
    server 127.0.0.1:5000 weight=3;
}
server {
    listen 8080;
    gzip on;
    gzip_types text/plain;
    gzip_min_length 10;
    location / {
        proxy_pass http://app;
        proxy_set_header Host $host;
        proxy_set_header Cookie "";
        proxy_set_header X-A "$scheme $request_method $http_x_given";
        proxy_hide_header X-B;
        client_max_body_size 10;
        add_header X-A $request_method;
    }
    location /sub/ {
        gzip off;
        proxy_pass http://127.0.0.1:5001/inner/;
        proxy_set_header Host $http_host;
    }
    location /elsewhere/ {
        gzip off;
        proxy_pass http://127.0.0.1:5002;
        proxy_redirect http://old.test/ /elsewhere/;
        client_max_body_size 0;
    }
}
`,
			asks: []string{
				"http://a/x?y", "http://a/x\nAccept-Encoding: gzip", "http://a/x\nX-Given: 1\r\nCookie: a=b", "POST http://a/\n\n123456789", "POST http://a/\n\n1234567890123",
				"http://a/sub/x?status=302&location=http://127.0.0.1/", "http://a/sub/x?status=302&location=http://SELF/inner/y", "http://a/sub/x?status=302&location=http://SELF/y",
				"http://a/elsewhere/x?status=301&location=http://old.test/z", "POST http://a/elsewhere/\n\n1234567890123", "http://a/x?status=404", "http://a/x?status=500",
				"http://a//x//y",
			},
			haproxy: outcome{refused: []string{"add_header"}, why: "fields of requests are gone when answers are looked at"},
			gateway: outcome{
				refused: []string{"add_header", "client_max_body_size", "gzip", "least_conn", "proxy_redirect", "proxy_set_header", "server"},
				why:     "a route limits no bodies, compresses nothing and gives fields fixed values",
			},
		},
		{
			name: "names over TLS",
			text: `server {
    listen 443 ssl;
    server_name app.*;
    ssl_certificate /etc/letsencrypt/live/x/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/x/privkey.pem;
    location / {
        set $upstream_app 127.0.0.1;
        set $upstream_port 5000;
        set $upstream_proto http;
        proxy_pass $upstream_proto://127.0.0.1:5000;
        proxy_set_header X-A "$upstream_app $upstream_port";
    }
    location /rpc {
        set $upstream_proto http;
        proxy_pass $upstream_proto://127.0.0.1:5000/one/rpc;
        proxy_pass_header Authorization;
    }
}
server {
    listen 443 ssl default_server;
    server_name _;
    ssl_certificate /etc/letsencrypt/live/x/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/x/privkey.pem;
    return 444;
}
server {
    listen 80;
    server_name _;
    return 301 https://$host$request_uri;
}
`,
			asks: []string{
				"https://app.example.com/x", "https://app.example.com/rpc/x?y", "https://b.example.com/x", "http://app.example.com/x?y",
			},
			gateway: outcome{refused: []string{"location", "proxy_pass", "return", "server", "server_name"}, why: "host names of routes are whole, or begin with *."},
		},
		{
			name:  "an application that runs every script",
			files: map[string]string{"site/index.php": "", "site/a/b.php": ""},
			text: `server {
    listen 8080;
    server_name a;
    location ~ \.php$ {
        fastcgi_pass 127.0.0.1:9000;
        fastcgi_param SCRIPT_FILENAME __DIR__/site$fastcgi_script_name;
        fastcgi_param SCRIPT_NAME $fastcgi_script_name;
        fastcgi_param REQUEST_METHOD $request_method;
        fastcgi_param REQUEST_URI $request_uri;
        fastcgi_param QUERY_STRING $query_string;
        fastcgi_param DOCUMENT_URI $document_uri;
        fastcgi_param SERVER_NAME $server_name;
        fastcgi_param REDIRECT_STATUS 200;
    }
    location / {
        return 404;
    }
}
`,
			asks:    []string{"http://a/index.php?x=y", "http://a/a/b.php", "http://a/none.php", "http://a/", "POST http://a/index.php\n\nbody"},
			gateway: outcome{refused: []string{"location"}, why: "a gateway knows no expressions"},
		},
		{
			name: "hidden files",
			text: `server {
    listen 443 ssl;
    server_name app.example.com;
    ssl_certificate /etc/letsencrypt/live/x/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/x/privkey.pem;
    ssl_protocols TLSv1.3;
    location ~* /\.(?!well-known\/) {
        deny all;
    }
    location / {
        proxy_pass http://127.0.0.1:5000;
    }
}
server {
    listen 80;
    server_name app.example.com;
    return 301 $scheme://www.example.com$request_uri;
}
`,
			asks: []string{
				"https://app.example.com/x", "https://app.example.com/.git/config", "https://app.example.com/a/.env", "https://app.example.com/.well-known/x", "https://app.example.com/.well-known",
				"https://app.example.com/.WELL-known/x", "https://app.example.com/.well-known/.git", "https://app.example.com/.", "https://app.example.com/.w", "https://app.example.com/./.git/config", "https://app.example.com/a/.//./.env", "https://app.example.com/.well-knownx/",
				"http://app.example.com/x?y",
			},
			gateway: outcome{refused: []string{"deny", "server", "ssl_protocols"}, why: "a gateway knows no expressions and no versions of TLS"},
		},
		{
			name: "what a gateway can say",
			text: `upstream app {
    server 10.0.0.1:5000 weight=2;
    server localhost:5000;
}
server {
    listen 80;
    listen 443 ssl;
    server_name a.test *.b.test;
    ssl_certificate /etc/letsencrypt/live/x/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/x/privkey.pem;
    location / {
        proxy_pass http://app;
        proxy_set_header Host $host;
        proxy_set_header X-By gateway;
        proxy_set_header Cookie "";
        proxy_hide_header X-Powered-By;
        add_header X-Frame-Options DENY always;
    }
    location /v1/ {
        if ($http_x_version = 2) {
            return 302 https://new.test/;
        }
        if ($request_method = POST) {
            return 307 /v2/;
        }
        proxy_pass http://10.0.0.3:80/one/;
    }
    location = /old {
        return 301 /new;
    }
    location = /exact {
        proxy_pass http://10.0.0.3:80/two;
    }
    location = /1 { return 301 /x; }
    location = /2 { return 301 /x; }
    location = /3 { return 301 /x; }
    location = /4 { return 301 /x; }
    location = /5 { return 301 /x; }
    location = /6 { return 303 /x; }
    location = /7 { return 308 /x; }
    location = /8 { return 301 $scheme://$host/x; }
    location = /9 { return 301 $scheme://c.test$request_uri; }
    location = /10 { return 301 /x; }
    location = /11 { return 301 /x; }
    location = /12 { return 301 /x; }
}
server {
    listen 80;
    server_name c.test;
    location / {
        proxy_pass http://[fd00::1]:5000;
    }
}
`,
			asks:    []string{"http://a.test/old", "http://x.b.test/9"},
			gateway: outcome{partial: []string{"return"}, why: "the path of a redirect is whole, or that of the request"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.text, "")
			s.files = c.files
			judge(t, api, s, c.asks, c.caddy, c.haproxy, c.gateway)
		})
	}
}
