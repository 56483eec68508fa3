CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE sweeps (
	id VARCHAR(64) NOT NULL,
	name VARCHAR(255) NOT NULL,
	state VARCHAR(16) NOT NULL,
	reason TEXT NOT NULL,
	attempt INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	started_at DATETIME,
	finished_at DATETIME,
	moved_at DATETIME,
	last_event INTEGER NOT NULL,
	tracked INTEGER NOT NULL,
	spec JSON NOT NULL, trace VARCHAR(64) DEFAULT '' NOT NULL, family VARCHAR(64) DEFAULT '' NOT NULL, revision INTEGER DEFAULT '0' NOT NULL, deaths INTEGER DEFAULT '0' NOT NULL, ran DOUBLE DEFAULT '0' NOT NULL, running_since DATETIME, priority INTEGER DEFAULT '0' NOT NULL,
	CONSTRAINT pk_sweeps PRIMARY KEY (id)
);
CREATE INDEX ix_sweeps_name ON sweeps (name);
CREATE INDEX ix_sweeps_state ON sweeps (state);
CREATE INDEX ix_sweeps_created_at_id ON sweeps (created_at, id);
CREATE TABLE trials (
	id VARCHAR(64) NOT NULL,
	sweep_id VARCHAR(64) NOT NULL,
	number INTEGER NOT NULL,
	point JSON NOT NULL,
	state VARCHAR(16) NOT NULL,
	reason TEXT NOT NULL,
	"values" JSON,
	value DOUBLE,
	step INTEGER NOT NULL,
	checkpoint TEXT,
	created_at DATETIME NOT NULL,
	finished_at DATETIME, repeat INTEGER DEFAULT '0' NOT NULL, exploits JSON DEFAULT '[]' NOT NULL,
	CONSTRAINT pk_trials PRIMARY KEY (id),
	CONSTRAINT fk_trials_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweeps (id),
	CONSTRAINT uq_trials_sweep_id_number UNIQUE (sweep_id, number)
);
CREATE INDEX ix_trials_sweep_id_state_value_number ON trials (sweep_id, state, value, number);
CREATE TABLE measurements (
	trial_id VARCHAR(64) NOT NULL,
	step INTEGER NOT NULL,
	at DATETIME NOT NULL,
	metrics JSON NOT NULL,
	CONSTRAINT pk_measurements PRIMARY KEY (trial_id, step),
	CONSTRAINT fk_measurements_trial_id FOREIGN KEY(trial_id) REFERENCES trials (id)
)
 WITHOUT ROWID
;
CREATE TABLE events (
	sweep_id VARCHAR(64) NOT NULL,
	number INTEGER NOT NULL,
	at DATETIME NOT NULL,
	kind VARCHAR(16) NOT NULL,
	data JSON NOT NULL,
	CONSTRAINT pk_events PRIMARY KEY (sweep_id, number),
	CONSTRAINT fk_events_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweeps (id)
)
 WITHOUT ROWID
;
CREATE TABLE model_versions (
	name VARCHAR(255) NOT NULL,
	version INTEGER NOT NULL,
	sweep_id VARCHAR(64) NOT NULL,
	trial_id VARCHAR(64) NOT NULL,
	value DOUBLE NOT NULL,
	path TEXT NOT NULL,
	created_at DATETIME NOT NULL,
	CONSTRAINT pk_model_versions PRIMARY KEY (name, version),
	CONSTRAINT fk_model_versions_sweep_id FOREIGN KEY(sweep_id) REFERENCES sweeps (id),
	CONSTRAINT fk_model_versions_trial_id FOREIGN KEY(trial_id) REFERENCES trials (id),
	CONSTRAINT uq_model_versions_name_trial_id UNIQUE (name, trial_id)
);
CREATE TABLE api_keys (
	id VARCHAR(64) NOT NULL,
	name VARCHAR(255) NOT NULL,
	digest VARCHAR(64) NOT NULL,
	scopes JSON NOT NULL,
	rate INTEGER,
	max_body_bytes INTEGER,
	created_at DATETIME NOT NULL,
	revoked_at DATETIME,
	CONSTRAINT pk_api_keys PRIMARY KEY (id)
);
CREATE TABLE deeds (
	number INTEGER NOT NULL,
	at DATETIME NOT NULL,
	actor TEXT NOT NULL,
	action VARCHAR(64) NOT NULL,
	subject TEXT NOT NULL,
	trace_id VARCHAR(32) NOT NULL,
	CONSTRAINT pk_deeds PRIMARY KEY (number)
);
CREATE TABLE claims (
	"key" VARCHAR(64) NOT NULL,
	fingerprint VARCHAR(64) NOT NULL,
	sweep_id VARCHAR(64) NOT NULL,
	at DATETIME NOT NULL,
	CONSTRAINT pk_claims PRIMARY KEY ("key")
);
CREATE INDEX ix_claims_at ON claims (at);
CREATE TABLE promotions (
	name VARCHAR(255) NOT NULL,
	number INTEGER NOT NULL,
	version INTEGER NOT NULL,
	kind VARCHAR(16) NOT NULL,
	at DATETIME NOT NULL,
	"by" TEXT NOT NULL,
	reason TEXT NOT NULL,
	CONSTRAINT pk_promotions PRIMARY KEY (name, number)
);
CREATE INDEX ix_sweeps_family ON sweeps (family);
CREATE TABLE leases (
	name VARCHAR(64) NOT NULL,
	holder VARCHAR(64) NOT NULL,
	beat INTEGER NOT NULL,
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
CREATE INDEX ix_sweeps_state_priority_created_at_id ON sweeps (state, priority, created_at, id);
CREATE TABLE model_numbers (
	name VARCHAR(255) NOT NULL,
	version INTEGER NOT NULL,
	CONSTRAINT pk_model_numbers PRIMARY KEY (name)
);
INSERT INTO alembic_version VALUES ('0012_model_numbers');
