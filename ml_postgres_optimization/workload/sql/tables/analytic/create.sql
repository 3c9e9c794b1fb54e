-- A star schema of sales: one row for each line of a receipt, and what it refers to.
CREATE SCHEMA genesis_analytic;

CREATE TABLE genesis_analytic.days (
    day_id integer NOT NULL,
    day date NOT NULL,
    year integer NOT NULL,
    quarter integer NOT NULL,
    month integer NOT NULL,
    weekday integer NOT NULL,
    is_holiday boolean NOT NULL
);

CREATE TABLE genesis_analytic.stores (
    store_id integer NOT NULL,
    name text NOT NULL,
    city text NOT NULL,
    region text NOT NULL,
    area_square_metres integer NOT NULL,
    opened_on date NOT NULL
);

CREATE TABLE genesis_analytic.products (
    product_id integer NOT NULL,
    name text NOT NULL,
    brand text NOT NULL,
    category text NOT NULL,
    list_price numeric(10, 2) NOT NULL,
    weight_grams integer NOT NULL
);

CREATE TABLE genesis_analytic.customers (
    customer_id integer NOT NULL,
    name text NOT NULL,
    segment text NOT NULL,
    region text NOT NULL,
    birth_year integer NOT NULL,
    joined_on date NOT NULL
);

CREATE TABLE genesis_analytic.promotions (
    promotion_id integer NOT NULL,
    name text NOT NULL,
    channel text NOT NULL,
    discount_percent integer NOT NULL
);

CREATE TABLE genesis_analytic.sales (
    sale_id bigint NOT NULL,
    receipt_id bigint NOT NULL,
    day_id integer NOT NULL,
    store_id integer NOT NULL,
    product_id integer NOT NULL,
    customer_id integer NOT NULL,
    promotion_id integer,
    quantity integer NOT NULL,
    unit_price numeric(10, 2) NOT NULL,
    discount numeric(10, 2) NOT NULL,
    cost numeric(10, 2) NOT NULL
);
