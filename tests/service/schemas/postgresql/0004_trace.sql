CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.api_keys (
    id character varying(64) NOT NULL,
    name character varying(255) NOT NULL,
    digest character varying(64) NOT NULL,
    scopes json NOT NULL,
    rate integer,
    max_body_bytes integer,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone
);
CREATE TABLE public.deeds (
    number integer NOT NULL,
    at timestamp with time zone NOT NULL,
    actor text NOT NULL,
    action character varying(64) NOT NULL,
    subject text NOT NULL,
    trace_id character varying(32) NOT NULL
);
CREATE SEQUENCE public.deeds_number_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.deeds_number_seq OWNED BY public.deeds.number;
CREATE TABLE public.events (
    sweep_id character varying(64) NOT NULL,
    number integer NOT NULL,
    at timestamp with time zone NOT NULL,
    kind character varying(16) NOT NULL,
    data json NOT NULL
);
CREATE TABLE public.measurements (
    trial_id character varying(64) NOT NULL,
    step integer NOT NULL,
    at timestamp with time zone NOT NULL,
    metrics json NOT NULL
);
CREATE TABLE public.model_versions (
    name character varying(255) NOT NULL,
    version integer NOT NULL,
    sweep_id character varying(64) NOT NULL,
    trial_id character varying(64) NOT NULL,
    value double precision NOT NULL,
    path text NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE public.sweeps (
    id character varying(64) NOT NULL,
    name character varying(255) NOT NULL,
    state character varying(16) NOT NULL,
    reason text NOT NULL,
    attempt integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    moved_at timestamp with time zone,
    last_event integer NOT NULL,
    tracked integer NOT NULL,
    spec json NOT NULL,
    trace character varying(64) DEFAULT ''::character varying NOT NULL
);
CREATE TABLE public.trials (
    id character varying(64) NOT NULL,
    sweep_id character varying(64) NOT NULL,
    number integer NOT NULL,
    point json NOT NULL,
    state character varying(16) NOT NULL,
    reason text NOT NULL,
    "values" json,
    value double precision,
    step integer NOT NULL,
    checkpoint text,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    repeat integer DEFAULT 0 NOT NULL
);
ALTER TABLE ONLY public.deeds ALTER COLUMN number SET DEFAULT nextval('public.deeds_number_seq'::regclass);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT pk_api_keys PRIMARY KEY (id);
ALTER TABLE ONLY public.deeds
    ADD CONSTRAINT pk_deeds PRIMARY KEY (number);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT pk_events PRIMARY KEY (sweep_id, number);
ALTER TABLE ONLY public.measurements
    ADD CONSTRAINT pk_measurements PRIMARY KEY (trial_id, step);
ALTER TABLE ONLY public.model_versions
    ADD CONSTRAINT pk_model_versions PRIMARY KEY (name, version);
ALTER TABLE ONLY public.sweeps
    ADD CONSTRAINT pk_sweeps PRIMARY KEY (id);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT pk_trials PRIMARY KEY (id);
ALTER TABLE ONLY public.model_versions
    ADD CONSTRAINT uq_model_versions_name_trial_id UNIQUE (name, trial_id);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT uq_trials_sweep_id_number UNIQUE (sweep_id, number);
CREATE INDEX ix_sweeps_created_at_id ON public.sweeps USING btree (created_at, id);
CREATE INDEX ix_sweeps_name ON public.sweeps USING btree (name);
CREATE INDEX ix_sweeps_state ON public.sweeps USING btree (state);
CREATE INDEX ix_trials_sweep_id_state_value_number ON public.trials USING btree (sweep_id, state, value, number);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT fk_events_sweep_id FOREIGN KEY (sweep_id) REFERENCES public.sweeps(id);
ALTER TABLE ONLY public.measurements
    ADD CONSTRAINT fk_measurements_trial_id FOREIGN KEY (trial_id) REFERENCES public.trials(id);
ALTER TABLE ONLY public.model_versions
    ADD CONSTRAINT fk_model_versions_sweep_id FOREIGN KEY (sweep_id) REFERENCES public.sweeps(id);
ALTER TABLE ONLY public.model_versions
    ADD CONSTRAINT fk_model_versions_trial_id FOREIGN KEY (trial_id) REFERENCES public.trials(id);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT fk_trials_sweep_id FOREIGN KEY (sweep_id) REFERENCES public.sweeps(id);
INSERT INTO alembic_version VALUES ('0004_trace');
